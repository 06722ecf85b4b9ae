//! Clinics at the edge: whose terminal may ask what, codes that are none, pages, and figures that are read once for all.

use domain::Refusal;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::availability::{GetSupplyRequest, SupplyLevel};
use proto::clinic as pb;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::inventory::{SupplyFigures, SupplyRow, answer, command};
use tonic::Request;
use tonic::transport::Channel;

use crate::fake_inventory::{Reaction, agreed};
use crate::setup::{Setup, details, refusal};

const ID: &str = "0191d3c5-6d1e-4f3a-8a51-2f6d3c1b2a90";
const MINE: &str = "regions/seoul/clinics/c1";
/// A booking's code with a good check digit.
const CODE: &str = "0000-0000-0000";

fn from<T>(system: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-doseline-role", "clinic".parse().expect("ASCII"));
    metadata.insert("x-doseline-caller", system.parse().expect("ASCII"));
    request
}

fn check_in(clinic: &str, code: &str) -> pb::CheckInRequest {
    pb::CheckInRequest {
        clinic: clinic.to_owned(),
        request_id: ID.to_owned(),
        code: code.to_owned(),
    }
}

fn terminal(channel: &Channel) -> ClinicServiceClient<Channel> {
    ClinicServiceClient::new(channel.clone())
}

#[tokio::test]
async fn a_terminal_asks_for_its_own_clinic_only() {
    let (it, owner) = Setup::with_owner().await;
    let mut client = terminal(&it.channel);
    let answer = client
        .check_in(from("seoul--c1", check_in(MINE, CODE)))
        .await
        .expect("its own");
    let seen = answer.into_inner().appointment.expect("one");
    assert_eq!(seen.code, CODE);
    let asked = owner.commands().len();
    for foreign in ["seoul--c2", "busan--c1", "c1", "dev"] {
        let request = check_in(MINE, CODE);
        let status = client.check_in(from(foreign, request)).await;
        let status = status.expect_err(foreign);
        assert_eq!(refusal(&status), Refusal::ClinicForeign, "{foreign}");
        let request = pb::ResizeSlotRequest {
            slot: format!("{MINE}/slots/1"),
            request_id: ID.to_owned(),
            capacity: 3,
        };
        let status = client.resize_slot(from(foreign, request)).await;
        let status = status.expect_err(foreign);
        assert_eq!(refusal(&status), Refusal::ClinicForeign, "{foreign}");
        let clinic = MINE.to_owned();
        let request = pb::QueryInventoryRequest { clinic };
        let status = client.query_inventory(from(foreign, request)).await;
        let status = status.expect_err(foreign);
        assert_eq!(refusal(&status), Refusal::ClinicForeign, "{foreign}");
        let (clinic, cursor) = (MINE.to_owned(), String::new());
        let request = pb::WatchInventoryRequest { clinic, cursor };
        let status = client.watch_inventory(from(foreign, request)).await;
        let status = status.expect_err(foreign);
        assert_eq!(refusal(&status), Refusal::ClinicForeign, "{foreign}");
    }
    assert_eq!(
        owner.commands().len(),
        asked,
        "nothing reached an inventory"
    );
}

#[tokio::test]
async fn a_code_that_is_none_is_told_at_the_edge() {
    let (it, owner) = Setup::with_owner().await;
    let asked = owner.commands().len();
    for code in ["", "0000-0000-0001", "0000-0000-000", "UUUU-UUUU-UUUU"] {
        let mut request = check_in("regions/seoul/clinics/C1", code);
        request.request_id = "1".to_owned();
        let status = terminal(&it.channel)
            .check_in(from("seoul--c1", request))
            .await;
        let refused = details(&status.expect_err("malformed"));
        assert_eq!(refused.refusal, Refusal::Invalid);
        let fields: Vec<_> = refused.violations.iter().map(|(f, _)| f.as_str()).collect();
        assert_eq!(fields, ["clinic", "request_id", "code"], "all at once");
    }
    assert_eq!(owner.commands().len(), asked);
}

#[tokio::test]
async fn a_page_of_one_day_sheet_is_no_page_of_another() {
    let (it, _owner) = Setup::with_owner().await;
    let mut client = terminal(&it.channel);
    let mut request = pb::ListAppointmentsRequest {
        clinic: MINE.to_owned(),
        day: Some(proto::common::Date {
            year: 2031,
            month: 3,
            day: 10,
        }),
        ..pb::ListAppointmentsRequest::default()
    };
    let first = client
        .list_appointments(from("seoul--c1", request.clone()))
        .await
        .expect("a page")
        .into_inner();
    assert!(!first.next_page_token.contains("after"), "sealed");
    request.page_token = first.next_page_token;
    let second = client
        .list_appointments(from("seoul--c1", request.clone()))
        .await
        .expect("the next page")
        .into_inner();
    assert_ne!(second.next_page_token, request.page_token);
    request.day.as_mut().expect("a day").day = 11;
    let status = client.list_appointments(from("seoul--c1", request)).await;
    let status = status.expect_err("another day's");
    assert_eq!(refusal(&status), Refusal::PageTokenInvalid);
}

fn row(clinic: &str, district: &str, vaccine: &str, received: u64) -> SupplyRow {
    SupplyRow {
        clinic: clinic.to_owned(),
        district: district.to_owned(),
        vaccine: vaccine.to_owned(),
        received,
        left: received / 2,
        ..SupplyRow::default()
    }
}

#[tokio::test]
async fn supply_is_read_once_for_all_who_ask_and_added_up_as_they_ask() {
    let (it, owner) = Setup::with_owner().await;
    owner.on(|command| {
        Reaction::Answer(match &command.action {
            Some(command::Action::ReadSupply(_)) => answer::Outcome::ReadSupply(SupplyFigures {
                rows: vec![
                    row("c1", "jongno", "a", 10),
                    row("c1", "jongno", "b", 2),
                    row("c2", "mapo", "a", 4),
                    row("c3", "mapo", "a", 6),
                ],
                as_of: None,
            }),
            _ => agreed(command),
        })
    });
    let ask = |level: SupplyLevel, page_size| GetSupplyRequest {
        region: "seoul".to_owned(),
        level: level.into(),
        page_size,
        ..GetSupplyRequest::default()
    };
    let get = |request: GetSupplyRequest| {
        let mut client = AvailabilityServiceClient::new(it.channel.clone());
        async move { client.get_supply(request).await.map(|r| r.into_inner()) }
    };
    let all = (0..64).map(|_| get(ask(SupplyLevel::Unspecified, 0)));
    for answer in futures::future::join_all(all).await {
        let sums: Vec<_> = answer.expect("figures").supply;
        let sums: Vec<_> = sums
            .iter()
            .map(|s| (s.vaccine.as_str(), s.received, s.left))
            .collect();
        assert_eq!(sums, [("a", 20, 10), ("b", 2, 1)]);
    }
    let mut request = ask(SupplyLevel::Clinic, 3);
    let first = get(request.clone()).await.expect("a page");
    let names: Vec<_> = first
        .supply
        .iter()
        .map(|s| (s.clinic.as_str(), s.vaccine.as_str()))
        .collect();
    let of = |clinic| format!("regions/seoul/clinics/{clinic}");
    assert_eq!(
        names,
        [(&*of("c1"), "a"), (&*of("c1"), "b"), (&*of("c2"), "a")]
    );
    request.page_token = first.next_page_token;
    let last = get(request.clone()).await.expect("the last page");
    assert_eq!((last.supply.len(), last.next_page_token.as_str()), (1, ""));
    request.district = "mapo".to_owned();
    let status = get(request).await.expect_err("another listing's");
    assert_eq!(refusal(&status), Refusal::PageTokenInvalid);
    let mut mapo = ask(SupplyLevel::District, 0);
    mapo.district = "mapo".to_owned();
    let mapo = get(mapo).await.expect("figures").supply;
    assert_eq!((mapo.len(), mapo[0].received), (1, 10));
    let reads = owner.commands().into_iter();
    let reads = reads.filter(|c| matches!(c.action, Some(command::Action::ReadSupply(_))));
    assert!(reads.count() <= 3, "68 callers, and a second or two");
    let mut elsewhere = ask(SupplyLevel::Region, 0);
    elsewhere.region = "jeju".to_owned();
    let status = get(elsewhere).await.expect_err("not served");
    assert_eq!(refusal(&status), Refusal::Invalid);
}
