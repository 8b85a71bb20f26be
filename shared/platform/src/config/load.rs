//! Putting the configuration together, in order of precedence.

use std::path::{Path, PathBuf};

use aig_inference::Defaults;

use super::environment::{self, Environment};
use super::file::{File, Source};
use super::{Config, ConfigError, sections};

/// What the command line may say, before or after any subcommand.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The folder for everything that has no URL of its own
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes any free one
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Reads the file, the environment and the flags; the later goes before the earlier.
///
/// # Errors
/// What is wrong, where, and what to write instead.
pub fn load(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let vars = Environment(env);
    let data_dir = data_dir(flags, &vars)?;
    let path = config_path(flags, &vars, &data_dir);
    let text = match &path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{} cannot be read: {error}", path.display())))?,
    };
    let source = Source { path: path.as_deref().unwrap_or(Path::new("aigateway.toml")), text: &text };
    let file = source.parse()?;
    sections::check(&file.server, &file.worker, &file.tasks)?;
    assemble(flags, &vars, data_dir, &source, file)
}

fn assemble(
    flags: &Flags,
    vars: &Environment<'_>,
    data_dir: PathBuf,
    source: &Source<'_>,
    file: File,
) -> Result<Config, ConfigError> {
    let either = |name: &str, from_file: Option<String>| vars.get(name).or(from_file);
    let listen = flags.listen.clone().or(either("AIG_LISTEN", file.listen));
    let or_memory = |name: &str, from_file: Option<String>| either(name, from_file).unwrap_or_else(|| "memory:".into());
    let link = |name: &str, text: Option<String>| text.map(|text| environment::link_url(name, &text)).transpose();
    let mut deadlines = std::collections::HashMap::new();
    for (id, model) in &file.models {
        deadlines.extend(source.deadline(model)?.map(|deadline| (id.clone(), deadline)));
    }
    let standard = Defaults::default();
    let config = Config {
        data_dir,
        listen: environment::listen(listen.as_deref().unwrap_or("127.0.0.1:8080"))?,
        public_url: link("AIG_PUBLIC_URL", either("AIG_PUBLIC_URL", file.public_url))?,
        media_url: link("AIG_MEDIA_URL", either("AIG_MEDIA_URL", file.media_url))?,
        database_url: either("AIG_DATABASE_URL", file.database_url)
            .map(|text| environment::database_url(&text))
            .transpose()?,
        broker: environment::broker_url(&or_memory("AIG_BROKER_URL", file.broker_url))?,
        cache: environment::cache_url(&or_memory("AIG_CACHE_URL", file.cache_url))?,
        files: either("AIG_FILES_URL", file.files_url).map(|text| environment::files_url(vars, &text)).transpose()?,
        prefix: environment::prefix(either("AIG_PREFIX", file.prefix).unwrap_or_else(|| "aigateway.".into()))?,
        health_listen: either("AIG_HEALTH_LISTEN", file.health_listen)
            .map(|text| environment::listen(&text))
            .transpose()?,
        secret_key: vars.secret_key()?,
        private_targets: either("AIG_PRIVATE_TARGETS", file.private_targets)
            .map(|text| environment::networks(&text))
            .transpose()?,
        log: either("AIG_LOG", file.log).unwrap_or_else(|| "info".into()),
        log_json: log_json(vars)?,
        providers: source.providers(file.providers, vars.0)?,
        defaults: Defaults {
            chat: file.defaults.chat.unwrap_or(standard.chat),
            video: file.defaults.video.unwrap_or(standard.video),
            music: file.defaults.music.unwrap_or(standard.music),
            three_d: file.defaults.three_d.unwrap_or(standard.three_d),
        },
        price_reload: source.price_reload(&file.prices)?,
        prices: source.prices(&file.prices, &file.models)?,
        deadlines,
        server: file.server,
        tiers: file.tiers,
        chat: file.chat,
        worker: file.worker,
        tasks: file.tasks,
    };
    if config.listen.ip().is_unspecified() && config.public_url.is_none() {
        return Err(ConfigError(format!(
            "AIG_PUBLIC_URL must be set when listening on {}: links cannot be made of a wildcard address",
            config.listen
        )));
    }
    Ok(config)
}

fn log_json(vars: &Environment<'_>) -> Result<Option<bool>, ConfigError> {
    match vars.get("AIG_LOG_FORMAT").as_deref() {
        None => Ok(None),
        Some("json") => Ok(Some(true)),
        Some("text") => Ok(Some(false)),
        Some(other) => Err(ConfigError(format!("AIG_LOG_FORMAT: `{other}` is neither `json` nor `text`"))),
    }
}

/// The flag, the variable, or the folder that XDG names.
fn data_dir(flags: &Flags, vars: &Environment<'_>) -> Result<PathBuf, ConfigError> {
    if let Some(folder) = flags.data_dir.clone().or_else(|| vars.get("AIG_DATA_DIR").map(PathBuf::from)) {
        return std::path::absolute(&folder)
            .map_err(|error| ConfigError(format!("the data folder {} makes no sense: {error}", folder.display())));
    }
    let xdg = vars.get("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || vars.get("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    match xdg.or_else(home) {
        Some(base) => Ok(base.join("aigateway")),
        None => Err(ConfigError("there is no home folder; set AIG_DATA_DIR or --data-dir".into())),
    }
}

/// The flag, the variable, `./aigateway.toml`, or the one in the data folder.
fn config_path(flags: &Flags, vars: &Environment<'_>, data_dir: &Path) -> Option<PathBuf> {
    let named = flags.config.clone().or_else(|| vars.get("AIG_CONFIG").map(PathBuf::from));
    let found =
        || [PathBuf::from("aigateway.toml"), data_dir.join("aigateway.toml")].into_iter().find(|path| path.exists());
    named.or_else(found)
}
