//! Deletes what is kept no longer: results after seven days, old keys, ended tasks and events.

use aig_domain::Error;
use aig_platform::App;

/// How many rounds one tick makes at most; what is left waits for the next.
const ROUNDS: u32 = 200;

pub(crate) async fn tick(app: App) -> Result<(), Error> {
    let mut last = None;
    for _ in 0..ROUNDS {
        let expired = app.store.expired_results(last.as_ref()).await?;
        let mut gone = Vec::with_capacity(expired.len());
        for result in &expired {
            // The file first: if the process ends in between, the row still knows it.
            let Some(key) = &result.file_key else {
                tracing::error!(job = result.job_id, "an expired result cannot be read; its file stays behind");
                gone.push(result.job_id.as_str());
                continue;
            };
            match app.files.delete(key).await {
                Ok(()) => gone.push(result.job_id.as_str()),
                Err(error) => {
                    tracing::warn!(job = result.job_id, %error, "an expired file was not deleted; trying again later");
                }
            }
        }
        app.store.forget_results(&gone).await?;
        let swept = app.store.sweep().await?;
        last = expired.into_iter().next_back();
        if last.is_none() && swept == 0 {
            break;
        }
    }
    Ok(())
}
