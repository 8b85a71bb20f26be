//! Deletes what is kept no longer: results after seven days, old keys, ended tasks and events.

use aig_domain::Error;
use aig_platform::App;

/// How many rounds one tick makes at most; what is left waits for the next.
const ROUNDS: u32 = 20;

pub(crate) async fn tick(app: App) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let expired = app.store.expired_results().await?;
        for result in &expired {
            // The file first: if the process ends in between, the row still knows it.
            if let Err(error) = app.files.delete(&result.file_key).await {
                tracing::warn!(job = result.job_id, %error, "an expired file was not deleted; trying again later");
                continue;
            }
            app.store.forget_result(&result.job_id).await?;
        }
        let swept = app.store.sweep().await?;
        if expired.is_empty() && swept == 0 {
            break;
        }
    }
    Ok(())
}
