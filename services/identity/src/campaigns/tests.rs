//! Applying campaigns, against the key space of one process.

use runtime::secret::Secret;
use serde_json::{Value, json};

use super::*;

pub(crate) fn document() -> Value {
    json!({
        "campaign": "kr-2021",
        "time_zone": "Asia/Seoul",
        "regions": ["busan", "seoul"],
        "cohorts": [
            { "cohort": "fifties", "born_from": "1962-01-01", "born_to": "1971-12-31",
              "opens_at": "2021-07-12T00:00:00+09:00", "permits_from": "2021-07-08" }
        ],
        "rules": { "vaccines": ["moderna"], "dose_interval": { "min_days": 28, "max_days": 42 },
                   "hold_ttl_secs": 300 },
        "last_appointment": "2021-12-31",
        "permit_ttl_secs": 3600
    })
}

fn keyspace() -> Keyspace {
    Keyspace::local(None).expect("a key space in memory")
}

async fn applied(keyspace: &Keyspace, document: &Value) -> Result<u64, Refused> {
    apply(keyspace, &document.to_string(), false).await
}

#[tokio::test]
async fn versions_rise_by_one_and_an_unchanged_document_keeps_its_own() {
    let keyspace = keyspace();
    assert_eq!(applied(&keyspace, &document()).await, Ok(1));
    assert_eq!(applied(&keyspace, &document()).await, Ok(1));
    let mut changed = document();
    changed["permit_ttl_secs"] = json!(7200);
    assert_eq!(applied(&keyspace, &changed).await, Ok(2));
    let stored = get(&keyspace, &"kr-2021".parse().expect("slug"))
        .await
        .expect("applied");
    assert_eq!((stored.version, stored.permit_ttl_secs), (2, 7_200));

    // What was read may be sent back, but not when somebody else was faster.
    let mut read = serde_json::to_value(&stored).expect("JSON");
    assert_eq!(applied(&keyspace, &read).await, Ok(2));
    read["version"] = json!(1);
    let refused = applied(&keyspace, &read)
        .await
        .expect_err("not the version in force");
    assert_eq!(refused.violations[0].0, "document.version");
}

#[tokio::test]
async fn checking_only_changes_nothing() {
    let keyspace = keyspace();
    let text = document().to_string();
    assert_eq!(apply(&keyspace, &text, true).await, Ok(0));
    let unknown = get(&keyspace, &"kr-2021".parse().expect("slug"))
        .await
        .expect_err("nothing there");
    assert_eq!(unknown.refusal, Refusal::CampaignUnknown);
}

#[tokio::test]
async fn everything_wrong_is_told_at_once_by_field() {
    let keyspace = keyspace();
    let mut bad = document();
    bad["time_zone"] = json!("Asia/Atlantis");
    bad["permit_ttl_secs"] = json!(1);
    bad["cohorts"][0]["born_to"] = json!("1900-01-01");
    let refused = applied(&keyspace, &bad).await.expect_err("three mistakes");
    let fields: Vec<_> = refused
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    for field in [
        "document.time_zone",
        "document.permit_ttl_secs",
        "document.cohorts[0].born_from",
    ] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
    for (text, field) in [
        (String::new(), "document"),
        ("[]".to_owned(), "document"),
        (format!("{} {{}}", document()), "document"),
        (
            document()
                .to_string()
                .replace("\"1962-01-01\"", "\"1962-13-01\""),
            "document.cohorts[0].born_from",
        ),
        (
            document()
                .to_string()
                .replace("permit_ttl_secs", "permit_ttl"),
            "document.permit_ttl",
        ),
        (" ".repeat(DOCUMENT_BYTES_MAX + 1), "document"),
    ] {
        let refused = apply(&keyspace, &text, false).await.expect_err("malformed");
        assert_eq!(refused.violations[0].0, field, "{:?}", refused.violations);
    }
}

#[tokio::test]
async fn operators_who_apply_at_once_get_a_version_each() {
    let keyspace = keyspace();
    let documents: Vec<_> = (0..4)
        .map(|n| {
            let mut document = document();
            document["permit_ttl_secs"] = json!(3_600 + n);
            document
        })
        .collect();
    let all = futures::future::join_all(documents.iter().map(|one| applied(&keyspace, one))).await;
    let mut versions: Vec<_> = all.into_iter().map(|one| one.expect("applied")).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_document_that_cannot_be_followed_leaves_the_one_before_in_force() {
    let keyspace = keyspace();
    let blinding = Blinding::new(Secret::new([1; 32]), Secret::new([2; 32])).expect("long enough");
    let campaigns = Campaigns::new(blinding);
    let id: CampaignId = "kr-2021".parse().expect("slug");
    let mut mirror = keyspace.mirror(PREFIX);
    mirror.ready().await;
    campaigns.take(&mirror.snapshot());
    assert!(campaigns.get(&id).is_none());

    let listing = async |text: String| {
        keyspace
            .put(format!("{PREFIX}{id}"), text)
            .await
            .expect("written");
        let entries = keyspace.list(PREFIX).await.expect("listed");
        entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect()
    };
    campaigns.take(&listing(document().to_string()).await);
    assert_eq!(
        campaigns
            .get(&id)
            .expect("in force")
            .campaign
            .permit_ttl_secs,
        3_600
    );
    let misplaced = document().to_string().replace("kr-2021\"", "kr-2022\"");
    for bad in [
        "{".to_owned(),
        document()
            .to_string()
            .replace("Asia/Seoul", "Asia/Atlantis"),
        misplaced,
    ] {
        campaigns.take(&listing(bad).await);
        assert_eq!(
            campaigns
                .get(&id)
                .expect("still in force")
                .campaign
                .time_zone,
            "Asia/Seoul"
        );
    }
    campaigns.take(&BTreeMap::new());
    assert!(
        campaigns.get(&id).is_none(),
        "a campaign that was removed is gone"
    );
}
