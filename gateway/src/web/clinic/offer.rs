//! What the clinic offers: every slot from today on, as owners publish it.

use std::collections::BTreeMap;

use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::StatusCode;
use maud::{Markup, html};
use proto::availability::Slot;
use proto::clinic::{QueryInventoryRequest, WatchInventoryRequest};
use proto::convert::from_timestamp;
use proto::status::Refused;

use super::{Message, Page, TELL_EVERY, Visit, status, tell};
use crate::web::inside;
use crate::web::text::number;

/// What one looks through on a screen.
const ROWS_MAX: usize = 200;
const OFFER: &str = "offer";

pub(super) async fn page(visit: &Visit) -> Response {
    let texts = visit.language.texts();
    let asked = QueryInventoryRequest {
        clinic: visit.clinic(),
    };
    let mut clinics = visit.site.inside.clinics();
    let answer = clinics
        .query_inventory(inside::of(&visit.session, asked))
        .await;
    let answer = answer.map_err(|status| inside::refused(&status));
    let (code, message, slots) = match answer {
        Ok(answer) => (StatusCode::OK, None, answer.into_inner().slots),
        Err(why) => {
            let message = Message::refused(visit.language, &why);
            (status(&why), Some(message), Vec::new())
        }
    };
    let content = html! {
        p.lead { (texts.inventory_lead) }
        div #offer .card data-part { (offer(visit, slots.iter())) }
    };
    visit.page(Page::Inventory, (code, message.as_ref()), &content)
}

fn offer<'a>(visit: &Visit, slots: impl Iterator<Item = &'a Slot>) -> Markup {
    let texts = visit.language.texts();
    let today = visit.today();
    let dated = slots.filter_map(|slot| {
        let starts = visit.zoned(from_timestamp(slot.start_time.as_ref()?));
        (starts.date() >= today).then_some((starts, slot))
    });
    let mut dated: Vec<_> = dated.collect();
    dated.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
    let more = dated.len() > ROWS_MAX;
    dated.truncate(ROWS_MAX);
    let mut days: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (starts, slot) in &dated {
        days.entry(starts.date()).or_default().push((starts, *slot));
    }
    html! {
        @if days.is_empty() { p { (texts.inventory_empty) } }
        @for (day, slots) in &days {
            div.table {
                table {
                    caption { time datetime=(day) { (day) } }
                    thead {
                        tr {
                            th scope="col" { (texts.time) }
                            th.text scope="col" { (texts.vaccine) }
                            th scope="col" { (texts.capacity) }
                            th scope="col" { (texts.left) }
                            th scope="col" { (texts.state) }
                        }
                    }
                    tbody {
                        @for (starts, slot) in slots {
                            tr {
                                th scope="row" { (starts.strftime("%H:%M")) }
                                td.text { (slot.vaccine) " · " (slot.dose) }
                                td { (number(slot.capacity.into())) }
                                td { (number(slot.left.into())) }
                                td { (state(visit, slot)) }
                            }
                        }
                    }
                }
            }
        }
        @if more { p { (texts.slots_more) } }
    }
}

fn state(visit: &Visit, slot: &Slot) -> Markup {
    let texts = visit.language.texts();
    html! {
        @if slot.closed { span.badge { (texts.slot_closed) } }
        @else if slot.left == 0 { span.badge.warn { (texts.slot_full) } }
        @else { span.badge.good { (texts.slot_open) } }
    }
}

/// The offer as it changes.
pub(super) async fn follow(visit: Visit) -> Result<BoxStream<'static, Bytes>, Refused> {
    let asked = WatchInventoryRequest {
        clinic: visit.clinic(),
        cursor: String::new(),
    };
    let mut clinics = visit.site.inside.clinics();
    let news = clinics
        .watch_inventory(inside::of(&visit.session, asked))
        .await;
    let news = news
        .map_err(|status| inside::refused(&status))?
        .into_inner();
    let start = (visit, news, BTreeMap::<String, Slot>::new(), true);
    let stream = futures::stream::unfold(
        start,
        |(visit, mut news, mut known, mut first)| async move {
            let message = news.next().await?.ok()?;
            if message.snapshot {
                known.clear();
            }
            if message.slots.is_empty() && !message.snapshot {
                let now = format!("event: time\ndata: {}\n\n", visit.site.now_ms());
                return Some((Bytes::from(now), (visit, news, known, first)));
            }
            known.extend(
                message
                    .slots
                    .into_iter()
                    .map(|slot| (slot.name.clone(), slot)),
            );
            let bytes = tell(
                &visit.site,
                OFFER,
                offer(&visit, known.values()),
                &mut first,
            );
            if !first {
                tokio::time::sleep(TELL_EVERY / 2).await;
            }
            Some((bytes, (visit, news, known, first)))
        },
    );
    Ok(stream.boxed())
}
