//! The control: nginx as a plain reverse proxy with one worker, which keeps its connections on both sides.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use aig_testkit::eventually;
use anyhow::Context as _;

use super::Process;
use super::process::START;
use crate::pin::{Cores, Place};

/// A running nginx.
pub struct Nginx {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// `nginx 1.22.1`.
    pub name: String,
}

/// Starts one in front of `upstream`. Without `buffering` it passes on what comes as it comes, as streams need it.
pub async fn start(cores: &Cores, upstream: SocketAddr, buffering: bool) -> anyhow::Result<Nginx> {
    let folder = tempfile::tempdir()?;
    // nginx does not take port 0; whoever takes this port in between makes the start fail, which is said.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    std::fs::write(folder.path().join("nginx.conf"), config(address, upstream, buffering))?;
    let mut command = cores.command(Place::Proxy, "nginx");
    command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
    let process = Process::start(command, folder)?;
    let listens = eventually("nginx listens", START, || async { TcpStream::connect(address).ok() }).await;
    listens.with_context(|| process.said())?;
    Ok(Nginx { process, address, name: version().unwrap_or_else(|| "nginx".into()) })
}

fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.split_once("nginx/").map(|(_, version)| format!("nginx {}", version.trim()))
}

fn config(address: SocketAddr, upstream: SocketAddr, buffering: bool) -> String {
    let buffering = if buffering { "on" } else { "off" };
    format!(
        r#"daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path client;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_max_temp_file_size 0;
    upstream fake {{
        server {upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://fake;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
        }}
    }}
}}
"#
    )
}
