//! Which URLs a tenant may make us call.
//!
//! https, public addresses, ports 443, 80 and 8443. Networks that the operator listed (`AIG_PRIVATE_TARGETS`) may be reached by
//! http too and on any port. What can be judged by the text alone is judged when a URL is stored; addresses are judged again
//! whenever it is used, after the name was resolved. [`UrlPolicy`] has no I/O; its table of vectors is below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

const PORTS: [u16; 3] = [443, 80, 8443];
const MAX_URL: usize = 2048;

/// Why a URL is not called. The message is for the tenant who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// It is not a URL, or longer than 2,048 characters.
    #[error("it is not a valid URL of at most 2048 characters")]
    Invalid,
    /// It is neither https nor http.
    #[error("it must begin with https://")]
    Scheme,
    /// It holds a user name or password.
    #[error("it must not hold a user name or password")]
    UserInfo,
    /// Its port is not allowed.
    #[error("its port must be 443, 80 or 8443")]
    Port,
    /// Its host is, or leads to, an address that is not public.
    #[error("its host is not a public address")]
    Address,
}

/// What a URL must fulfil.
#[derive(Clone, Debug, Default)]
pub struct UrlPolicy {
    private: Vec<IpNet>,
}

/// What is asked of every address that a URL's host leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Public, or listed by the operator.
    Public,
    /// Listed by the operator: the URL is http, or has an unusual port.
    Listed,
}

impl UrlPolicy {
    /// A policy that opens `private` networks besides public addresses.
    pub fn new(private: Vec<IpNet>) -> Self {
        Self { private }
    }

    /// Judges a URL by its text, as far as that goes.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check_url(&self, text: &str) -> Result<Url, UrlRefused> {
        self.judge(text).map(|(url, _)| url)
    }

    pub(crate) fn judge(&self, text: &str) -> Result<(Url, Reach), UrlRefused> {
        // The parser would drop tabs and line breaks silently; what we store is what we call.
        if text.len() > MAX_URL || text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(UrlRefused::Invalid);
        }
        let url = Url::parse(text).map_err(|_| UrlRefused::Invalid)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefused::UserInfo);
        }
        let usual_port = url.port_or_known_default().is_some_and(|port| PORTS.contains(&port));
        let reach = if url.scheme() == "https" && usual_port { Reach::Public } else { Reach::Listed };
        let hopeless = if url.scheme() == "http" { UrlRefused::Scheme } else { UrlRefused::Port };
        if reach == Reach::Listed && self.private.is_empty() {
            return Err(hopeless);
        }
        let literal = match url.host().ok_or(UrlRefused::Invalid)? {
            Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                let local = name == "localhost" || name.ends_with(".localhost");
                local.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
            }
        };
        match literal {
            Some(ip) if !self.allows(ip, Reach::Public) => Err(UrlRefused::Address),
            Some(ip) if !self.allows(ip, reach) => Err(hopeless),
            _ => Ok((url, reach)),
        }
    }

    /// Whether an address may be connected to.
    pub(crate) fn allows(&self, ip: IpAddr, reach: Reach) -> bool {
        let ip = ip.to_canonical();
        let listed = self.private.iter().any(|net| net.contains(&ip));
        listed || (reach == Reach::Public && is_public(ip))
    }
}

/// Whether an address is one of the public internet's, by what it means and not by how it is written.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || matches!((a, b, c), (0 | 224..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _))
        // The metadata and health service of one large cloud.
        || ip == Ipv4Addr::new(168, 63, 129, 16);
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    // Only 2000::/3 is handed out for the public internet; everything embedded or reserved inside it goes, too.
    let global = s[0] & 0xe000 == 0x2000;
    let special = matches!((s[0], s[1]), (0x2001, ..0x0200 | 0x0db8) | (0x2002, _) | (0x3fff, ..0x1000));
    let tunnel_address = matches!((s[4], s[5]), (0 | 0x0200, 0x5efe));
    global && !special && !tunnel_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_to(nets: &[&str]) -> UrlPolicy {
        UrlPolicy::new(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn ssrf_vectors() {
        let policy = UrlPolicy::default();
        for good in [
            "https://example.com/hook?a=1",
            "https://example.com:8443/",
            "https://example.com:80/",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
            "https://ok.com\\@127.0.0.1/",
        ] {
            assert!(policy.check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://0x7f.1/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[fe80::1%25eth0]/",
            "https://[fe80::1]/",
            "https://169.254.169.254/",
            "https://[fd00:ec2::254]/",
            "https://localhost/",
            "https://localhost./",
            "https://LOCALHOST/",
            "https://a.localhost/",
            "https://①②⑦.⓪.⓪.①/",
            "https://a@127.0.0.1/",
            "https://a:b@example.com/",
            "https://127.0.0.1#@ok.com",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://100.100.100.200/",
            "https://168.63.129.16/",
            "https://192.0.2.1/",
            "https://198.18.0.1/",
            "https://203.0.113.7/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::127.0.0.1]/",
            "https://[fec0::1]/",
            "https://[2001::1]/",
            "https://[2001:20::1]/",
            "https://[2001:db8::1]/",
            "https://[2002:7f00:1::]/",
            "https://[ff02::1]/",
            "https://[2606::5efe:a00:1]/",
            "https://exam\tple.com/",
            "https://example.com/\nx",
            " https://example.com/",
            "http://example.com/",
            "http://127.0.0.1/",
            "file:///etc/passwd",
            "gopher://x/",
            "data:,x",
            "ftp://x/",
            "http+unix://x/",
            "https://example.com:22/",
            "https://example.com:25/",
            "https://example.com:6379/",
            "https://example.com:5672/",
            "https://example.com:15672/",
            "https://",
            "x",
            "",
            "//example.com",
        ] {
            assert!(policy.check_url(bad).is_err(), "{bad}");
        }
        assert!(policy.check_url(&format!("https://example.com/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn a_listed_network_is_open_by_http_and_on_any_port() {
        let policy = open_to(&["127.0.0.0/8", "::1/128"]);
        for good in [
            "http://127.0.0.1:9/x",
            "http://127.1:9/",
            "http://[::1]:1234/",
            "http://localhost:8080/",
            "https://127.0.0.1:9/",
            "http://[::ffff:127.0.0.1]:9/",
            "https://example.com/",
        ] {
            assert!(policy.check_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://10.0.0.1/", "https://10.0.0.1/", "http://8.8.8.8/", "https://8.8.8.8:9/", "ftp://127.0.0.1/"]
        {
            assert!(policy.check_url(bad).is_err(), "{bad}");
        }
        // A name may lead into a listed network; where it does lead is judged when it is used.
        assert_eq!(policy.judge("http://internal.example/").unwrap().1, Reach::Listed);
        assert!(policy.allows("127.0.0.1".parse().unwrap(), Reach::Listed));
        assert!(!policy.allows("8.8.8.8".parse().unwrap(), Reach::Listed));
    }
}
