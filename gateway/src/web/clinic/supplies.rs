//! The stock: what there is of each vaccine, and what comes and goes.

use std::collections::BTreeSet;

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use proto::availability::{GetSupplyRequest, Supply, SupplyLevel};
use proto::clinic::Stock;
use proto::status::Refused;

use super::{Message, Page, Visit};
use crate::web::inside;
use crate::web::text::{Texts, number};

/// What was typed into a form that is to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) action: &'static str,
    pub(super) vaccine: String,
    pub(super) doses: String,
    pub(super) lot: String,
    /// The id of the request, where it is the same one.
    pub(super) request_id: Option<String>,
}

/// The forms: what each does and what it asks for.
struct Kind {
    action: &'static str,
    title: fn(&Texts) -> &'static str,
    help: fn(&Texts) -> &'static str,
    lot: bool,
    least: u32,
}

const KINDS: [Kind; 4] = [
    Kind {
        action: "deliver",
        title: |texts| texts.deliver,
        help: |texts| texts.deliver_help,
        lot: false,
        least: 1,
    },
    Kind {
        action: "waste",
        title: |texts| texts.waste,
        help: |texts| texts.waste_help,
        lot: false,
        least: 1,
    },
    Kind {
        action: "set_walk_ins",
        title: |texts| texts.set_walk_ins,
        help: |texts| texts.set_walk_ins_help,
        lot: false,
        least: 0,
    },
    Kind {
        action: "walk_in",
        title: |texts| texts.record_walk_in,
        help: |texts| texts.record_walk_in_help,
        lot: true,
        least: 1,
    },
];

pub(super) async fn page(
    visit: &Visit,
    message: Option<(StatusCode, Message)>,
    typed: Option<Typed>,
) -> Response {
    with(visit, message, typed, None).await
}

/// The page after a change: figures of supply are a second old, those of the answer are not.
pub(super) async fn with(
    visit: &Visit,
    message: Option<(StatusCode, Message)>,
    typed: Option<Typed>,
    newest: Option<Stock>,
) -> Response {
    let texts = visit.language.texts();
    let (status, message) = message.unzip();
    let (mut rows, fault) = match read(visit).await {
        Ok(rows) => (rows, None),
        Err(why) => (Vec::new(), Some(Message::refused(visit.language, &why))),
    };
    if let Some(newest) = newest {
        let known = rows.iter_mut().find(|row| row.vaccine == newest.vaccine);
        match known {
            Some(row) => *row = newest,
            None => rows.push(newest),
        }
    }
    let vaccines = vaccines(visit, &rows);
    let wrong = matches!(message, Some(Message::Refused(_)));
    let content = html! {
        p.lead { (texts.stock_lead) }
        @if let Some(fault) = &fault { (fault.markup(visit.language)) }
        div #stock .card { (table(&rows, texts)) }
        div.grid {
            @for kind in &KINDS {
                (form(visit, kind, &vaccines, typed.as_ref().filter(|typed| typed.action == kind.action), wrong))
            }
        }
    };
    let status = status.unwrap_or(StatusCode::OK);
    visit.page(Page::Stock, (status, message.as_ref()), &content)
}

async fn read(visit: &Visit) -> Result<Vec<Stock>, Refused> {
    let asked = GetSupplyRequest {
        region: visit.session.clinic.region.to_string(),
        level: SupplyLevel::Clinic.into(),
        clinic: visit.clinic(),
        page_size: 1_000,
        ..GetSupplyRequest::default()
    };
    let mut availability = visit.site.inside.availability();
    let answer = availability
        .get_supply(inside::of(&visit.session, asked))
        .await;
    let answer = answer.map_err(|status| inside::refused(&status))?;
    let stock = |row: Supply| Stock {
        vaccine: row.vaccine,
        received: row.received,
        wasted: row.wasted,
        walk_in: row.walk_in,
        opened: row.opened,
        given: row.given,
        walk_in_given: 0,
    };
    Ok(answer.into_inner().supply.into_iter().map(stock).collect())
}

/// Those in stock and those of the campaigns that run here.
fn vaccines(visit: &Visit, rows: &[Stock]) -> BTreeSet<String> {
    let campaigns = visit.site.rooms.campaigns();
    let here = campaigns
        .iter()
        .filter(|campaign| campaign.regions.contains(&visit.session.clinic.region));
    let given = here.flat_map(|campaign| &campaign.rules.vaccines);
    let given = given.map(ToString::to_string);
    given
        .chain(rows.iter().map(|row| row.vaccine.clone()))
        .collect()
}

fn table(rows: &[Stock], texts: &Texts) -> Markup {
    html! {
        @if rows.is_empty() { p { (texts.stock_empty) } } @else {
            div.table.tight {
                table {
                    caption.hidden { (texts.stock) }
                    thead {
                        tr {
                            th scope="col" { (texts.vaccine) }
                            th scope="col" { (texts.received) }
                            th scope="col" { (texts.wasted) }
                            th scope="col" { (texts.walk_in) }
                            th scope="col" { (texts.opened) }
                            th scope="col" { (texts.given) }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                th scope="row" { (row.vaccine) }
                                td { (number(row.received)) }
                                td { (number(row.wasted)) }
                                td { (number(row.walk_in)) }
                                td { (number(row.opened)) }
                                td { (number(row.given)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn form(
    visit: &Visit,
    kind: &Kind,
    vaccines: &BTreeSet<String>,
    typed: Option<&Typed>,
    wrong: bool,
) -> Markup {
    let texts = visit.language.texts();
    let action = kind.action;
    let request_id = typed.and_then(|typed| typed.request_id.as_deref());
    let chosen = |vaccine: &str| typed.is_some_and(|typed| typed.vaccine == vaccine);
    let wrong = (wrong && typed.is_some()).then_some("true");
    let described = wrong.map(|_| "message");
    html! {
        form.card method="post" action="/clinic/act" aria-labelledby={ (action) "-title" } {
            h2 #{ (action) "-title" } { ((kind.title)(texts)) }
            p.help { ((kind.help)(texts)) }
            (visit.hidden(action, request_id))
            div.field {
                label for={ (action) "-vaccine" } { (texts.vaccine) }
                select #{ (action) "-vaccine" } name="vaccine" required {
                    @for vaccine in vaccines {
                        option value=(vaccine) selected[chosen(vaccine)] { (vaccine) }
                    }
                }
            }
            @if kind.lot {
                div.field {
                    label for={ (action) "-lot" } { (texts.lot) }
                    input #{ (action) "-lot" } name="lot" required maxlength="40" autocomplete="off" spellcheck="false"
                        value=[typed.map(|typed| typed.lot.as_str())] aria-invalid=[wrong] aria-describedby=[described];
                }
            } @else {
                div.field {
                    label for={ (action) "-doses" } { (texts.doses_count) }
                    input #{ (action) "-doses" } name="doses" type="number" inputmode="numeric" required min=(kind.least)
                        max="1000000" step="1" value=[typed.map(|typed| typed.doses.as_str())] aria-invalid=[wrong]
                        aria-describedby=[described];
                }
            }
            button { (texts.submit) }
        }
    }
}
