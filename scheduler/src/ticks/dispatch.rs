//! Rings the bell for what is due.

use aig_domain::Error;
use aig_platform::App;

pub(crate) async fn tick(app: App) -> Result<(), Error> {
    app.tasks.dispatch().await
}
