//! Returns the tasks of workers whose lease ran out.

use aig_domain::Error;
use aig_platform::App;

pub(crate) async fn tick(app: App) -> Result<(), Error> {
    let rescued = app.store.rescue().await?;
    if rescued > 0 {
        tracing::warn!(rescued, "tasks of dead workers were returned to their queues");
        metrics::counter!("aig_tasks_rescued_total").increment(rescued);
    }
    Ok(())
}
