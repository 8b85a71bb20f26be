//! Results, as they are downloaded.

use reqwest::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::gateway::{Answer, Gateway};

async fn finished(gateway: &Gateway) -> (String, Value) {
    let id = gateway.video("x").await;
    let job = gateway.wait(&id).await;
    (format!("/v1/files/jobs/{id}/video.mp4"), job)
}

#[tokio::test]
async fn the_bytes_are_the_ones_the_record_names() {
    let gateway = Gateway::start("").await;
    let (path, job) = finished(&gateway).await;
    let whole = gateway.request(Method::GET, &path).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.headers()["content-type"].to_str().unwrap()), (200, "video/mp4"));
    let whole = whole.bytes().await.unwrap();
    assert_eq!(hex::encode(Sha256::digest(&whole)), job["result"]["sha256"]);
    assert_eq!(whole.len() as u64, job["result"]["bytes"].as_u64().unwrap());

    let part = gateway.request(Method::GET, &path).header("range", "bytes=4-7").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"].to_str().unwrap(), format!("bytes 4-7/{}", whole.len()));
    assert_eq!(part.bytes().await.unwrap(), "ftyp");
    let tail = gateway.request(Method::GET, &path).header("range", "bytes=-3").send().await.unwrap();
    assert_eq!(tail.bytes().await.unwrap(), whole.slice(whole.len() - 3..));
    let beyond = gateway.request(Method::GET, &path).header("range", "bytes=999999999-").send().await.unwrap();
    let beyond = Answer::of(beyond).await;
    assert_eq!((beyond.status, beyond.body["error"]["type"].as_str()), (416, Some("range_not_satisfiable")));
    let head = gateway.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.headers()["content-length"].to_str().unwrap(), whole.len().to_string());
}

#[tokio::test]
async fn links_work_without_a_key_until_they_expire_and_cannot_be_forged() {
    let gateway = Gateway::start("").await;
    let (path, job) = finished(&gateway).await;
    let signed = gateway.get(&format!("{path}/signed?expires_in=60")).await.body;
    let url = signed["url"].as_str().unwrap();
    for link in [url, job["result_url"].as_str().unwrap()] {
        let answer = gateway.anonymous(Method::GET, link).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.bytes().await.unwrap().len() as u64, job["result"]["bytes"].as_u64().unwrap());
    }
    let exp = signed["expires_at"].as_i64().unwrap();
    let later = url.replace(&format!("exp={exp}"), &format!("exp={}", exp + 1));
    let other_file = url.replace("video.mp4", "music.wav");
    let other_key = url.replace("k=k1", "k=k2");
    for forged in
        [later, other_file, other_key, url.replace("token=", "token=A"), url.split('?').next().unwrap().to_owned()]
    {
        let refused = Answer::of(gateway.anonymous(Method::GET, &forged).send().await.unwrap()).await;
        assert_eq!(refused.status, 400, "{forged}");
    }
    for bad in ["59", "604801", "x", "-1"] {
        assert_eq!(gateway.get(&format!("{path}/signed?expires_in={bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn only_the_owner_reads_by_key() {
    let gateway = Gateway::start("").await;
    let (path, _) = finished(&gateway).await;
    let without = gateway.anonymous(Method::GET, &format!("{}{path}", gateway.url)).send().await.unwrap();
    assert_eq!(without.status(), 401);
    assert_eq!(gateway.get("/v1/files/jobs/job_nope/video.mp4").await.status, 404);
    assert_eq!(gateway.get(&path.replace("video.mp4", "other.mp4")).await.status, 404);
    assert_eq!(gateway.get(&path.replace("video.mp4", "..%2F..%2Fsecret-key")).await.status, 404);
}
