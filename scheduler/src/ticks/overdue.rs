//! Ends reservations of chat calls that nobody will end any more.

use aig_domain::Error;
use aig_platform::App;

pub(crate) async fn tick(app: App) -> Result<(), Error> {
    let ended = app.store.end_overdue_calls().await?;
    if ended > 0 {
        tracing::warn!(ended, "chat calls were left without an end; what they may cost counts against their caps");
        metrics::counter!("aig_reservations_uncertain_total").increment(ended);
    }
    Ok(())
}
