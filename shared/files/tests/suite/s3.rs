//! What S3 refuses is an error that says why and shows no secret.

use aig_domain::Secret;
use aig_files::{Files as _, FilesError, S3Config, S3Files};

use crate::support::{answers, body, s3_config};

/// What every call says of a store that cannot be used.
async fn refusals(files: &S3Files) -> Vec<String> {
    let outcomes = [
        files.check().await.err(),
        files.put("a", body(&["x"]), 9).await.err(),
        files.size("a").await.err(),
        files.read("a", 0..1).await.err(),
        files.delete("a").await.err(),
    ];
    let text = |error: FilesError| format!("{error} {error:?}");
    outcomes.into_iter().map(|error| text(error.expect("not refused"))).collect()
}

#[tokio::test]
async fn a_wrong_key_pair_is_refused_and_not_shown() {
    let good = s3_config("refused");
    if !answers(&S3Files::open(&good).unwrap(), &good).await {
        return;
    }
    let id = good.access_key_id.as_ref().unwrap().expose().to_owned();
    for (id, secret, code) in
        [(id.as_str(), "hush-hush", "SignatureDoesNotMatch"), ("AKIAHUSH", "hush-hush", "InvalidAccessKeyId")]
    {
        let config = S3Config {
            access_key_id: Some(Secret::new(id)),
            secret_access_key: Some(Secret::new(secret)),
            ..good.clone()
        };
        assert!(!format!("{config:?}").contains("hush"));
        let refusals = refusals(&S3Files::open(&config).unwrap()).await;
        assert!(refusals[0].contains(code) && refusals[0].contains("check the key pair"), "{refusals:?}");
        for refusal in refusals {
            assert!(refusal.starts_with("the file store failed: S3 answered "), "{refusal}");
            assert!(!refusal.to_lowercase().contains("hush"), "{refusal}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_told_from_a_missing_file() {
    let good = s3_config("missing");
    if !answers(&S3Files::open(&good).unwrap(), &good).await {
        return;
    }
    let mut url: url::Url = good.url.parse().unwrap();
    url.set_host(Some("aigateway-tests-of-nobody")).unwrap();
    let files = S3Files::open(&S3Config { url: url.into(), ..good }).unwrap();
    for error in [files.check().await.unwrap_err(), files.put("a", body(&["x"]), 9).await.unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "the file store failed: S3 answered NoSuchBucket: make the bucket, or check its name"
        );
    }
}
