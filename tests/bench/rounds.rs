//! The series of a round, product and floors in turns.

use std::path::Path;

use proto::availability::ListSlotsRequest;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{BookRequest, ConfirmHoldRequest, HoldSlotsRequest};
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{GetPlaceRequest, GetRoomRequest};
use system_tests::town::{CAMPAIGN, COHORT, Caller, Options, REGION, Town};
use uuid::Uuid;

use crate::Ask;
use crate::floors::Floor;
use crate::load::{CONNECTIONS, IN_FLIGHT, Measured, closed_loop};
use crate::reads::Read;
use crate::sql::Naive;
use crate::table::{Results, Series};

/// As many as the cluster of `./dev cluster` has in a region.
const SHARDS: u32 = 2;
const CLINICS: u32 = 500;
/// Slots on one page of a list.
const PAGE: i32 = 50;
/// Calls of a series of reads or of a floor, as a multiple of bookings: they are that much faster.
const READS: usize = 3;

/// Everything that is measured, running.
pub(crate) struct Bench {
    town: Town,
    gateway: Vec<Caller>,
    /// Tells places without looking at permits' signatures.
    trusting: Vec<Caller>,
    echo: (Floor, Vec<Caller>),
    proxy: (Floor, Vec<Caller>),
    /// As many bytes as a page of slots, and as a room.
    same_page: (Floor, Vec<Caller>),
    same_room: (Floor, Vec<Caller>),
    list: Read,
    room: Read,
    naive: Naive,
    calls: usize,
    results: Results,
}

impl Bench {
    /// Starts all of it. Permits are measured here: everybody must have one before the doors open.
    pub(crate) async fn start(folder: &Path, ask: &Ask) -> anyhow::Result<Self> {
        let options = Options {
            shards: SHARDS,
            clinics: CLINICS,
            places: 100_000,
            people: 0,
            gateways: 2,
            trusting_gateways: 1,
            inventories: 1,
            identities: 1,
            bookings_per_second_max: 0,
        };
        let mut town = Town::closed(folder, options).await?;
        let gateway = callers(&town.cluster.gateways[0].addr)?;
        let trusting = callers(&town.cluster.gateways[1].addr)?;
        let mut results = Results::default();
        let people = ask.calls * SERIES_OF_BOOKINGS;
        for round in 0..ask.rounds {
            let from = round * people;
            let measured = permits(&mut town, &gateway, from..from + people).await?;
            results.add(Series::Permits, measured);
        }
        let spare = ask.rounds * people;
        permits(&mut town, &gateway, spare..spare + 16).await?;
        town.open_doors().await?;

        let echo = Floor::echo(folder).await?;
        let proxy = Floor::proxy(folder, &echo.addr).await?;
        let list = Read::new(
            "/doseline.availability.v1.AvailabilityService/ListSlots",
            &ListSlotsRequest {
                region: REGION.to_owned(),
                page_size: PAGE,
                ..ListSlotsRequest::default()
            },
        );
        let room = Read::new(
            "/doseline.room.v1.RoomService/GetRoom",
            &GetRoomRequest {
                campaign: CAMPAIGN.to_owned(),
                cohort: COHORT.to_owned(),
            },
        );
        let page = list.ask(&gateway[0]).await?.len();
        let document = room.ask(&gateway[0]).await?.len();
        results.sizes = (page, document);
        let same_page = Floor::bytes(folder, page).await?;
        let same_room = Floor::bytes(folder, document).await?;
        let naive = Naive::start(&town.cluster.postgres).await?;
        Ok(Self {
            gateway,
            trusting,
            echo: with_callers(echo)?,
            proxy: with_callers(proxy)?,
            same_page: with_callers(same_page)?,
            same_room: with_callers(same_room)?,
            list,
            room,
            naive,
            calls: ask.calls,
            results,
            town,
        })
    }

    /// Every series once.
    pub(crate) async fn round(&mut self, round: usize) -> anyhow::Result<()> {
        let (calls, reads) = (self.calls, self.calls * READS);
        let all: Vec<String> = self.town.slots.concat();
        let hot = vec![all[round % all.len()].clone()];
        let fresh = |town: &mut Town| -> anyhow::Result<Vec<String>> {
            (0..calls).map(|_| town.permit()).collect()
        };

        let permits = fresh(&mut self.town)?;
        let (spread_too, floor) = (all.clone(), &self.echo.1);
        let measured = book(floor, permits.clone(), spread_too, reads).await?;
        self.results.add(Series::Echo, measured);
        let measured = book(&self.proxy.1, permits.clone(), all.clone(), reads).await?;
        self.results.add(Series::Proxied, measured);
        let measured = place(&self.gateway, permits.clone(), reads).await?;
        self.results.add(Series::GetPlace, measured);
        let measured = place(&self.trusting, permits.clone(), reads).await?;
        self.results.add(Series::GetPlaceTrusting, measured);
        let measured = book(&self.gateway, permits, all.clone(), calls).await?;
        self.results.add(Series::BookSpread, measured);
        let permits = fresh(&mut self.town)?;
        let measured = book(&self.gateway, permits, hot, calls).await?;
        self.results.add(Series::BookHot, measured);

        let permits = fresh(&mut self.town)?;
        let (held, holds) = hold(&self.gateway, permits.clone(), all).await?;
        self.results.add(Series::HoldSlots, held);
        let confirmed = confirm(&self.gateway, permits, holds).await?;
        self.results.add(Series::ConfirmHold, confirmed);

        for (series, hot) in [(Series::NaiveSpread, false), (Series::NaiveHot, true)] {
            let per_second = self.naive.per_second(hot).await?;
            self.results.add_rate(series, per_second);
        }
        let any = Read::new("/doseline.bench.Echo/Read", &ListSlotsRequest::default());
        for (series, read, callers) in [
            (Series::EchoOfPage, &any, &self.same_page.1),
            (Series::ListSlots, &self.list, &self.gateway),
            (Series::EchoOfRoom, &any, &self.same_room.1),
            (Series::GetRoom, &self.room, &self.gateway),
        ] {
            let measured = ask(callers, read.clone(), reads).await?;
            self.results.add(series, measured);
        }
        Ok(())
    }

    /// Ends everything.
    pub(crate) fn finish(self) -> Results {
        self.results
    }
}

/// Series of a round in which every call takes a permit.
const SERIES_OF_BOOKINGS: usize = 3;

fn with_callers(floor: Floor) -> anyhow::Result<(Floor, Vec<Caller>)> {
    let callers = callers(&floor.addr)?;
    Ok((floor, callers))
}

fn callers(addr: &str) -> anyhow::Result<Vec<Caller>> {
    (0..CONNECTIONS).map(|_| Caller::of(addr)).collect()
}

async fn permits(
    town: &mut Town,
    gateway: &[Caller],
    people: std::ops::Range<usize>,
) -> anyhow::Result<Measured> {
    let requests = town.permit_requests(people)?;
    let (calls, callers) = (requests.len(), gateway.to_vec());
    let (measured, permits) = closed_loop(IN_FLIGHT, calls, move |number| {
        let caller = callers[number % callers.len()].clone();
        let request = requests[number].clone();
        async move { caller.permit(request).await }
    })
    .await?;
    town.permits.extend(permits);
    Ok(measured)
}

/// A floor is asked more often than there are permits; it does not look at them.
async fn book(
    callers: &[Caller],
    permits: Vec<String>,
    slots: Vec<String>,
    calls: usize,
) -> anyhow::Result<Measured> {
    let callers = callers.to_vec();
    let booked = closed_loop(IN_FLIGHT, calls, move |number| {
        let mut client = BookingServiceClient::new(callers[number % callers.len()].service());
        let request = BookRequest {
            permit: permits[number % permits.len()].clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version: 0,
            slots: vec![slots[number % slots.len()].clone()],
        };
        async move { client.book(request).await.map(drop) }
    });
    Ok(booked.await?.0)
}

async fn place(callers: &[Caller], permits: Vec<String>, calls: usize) -> anyhow::Result<Measured> {
    let callers = callers.to_vec();
    let told = closed_loop(IN_FLIGHT, calls, move |number| {
        let mut client = RoomServiceClient::new(callers[number % callers.len()].service());
        let permit = permits[number % permits.len()].clone();
        async move { client.get_place(GetPlaceRequest { permit }).await.map(drop) }
    });
    Ok(told.await?.0)
}

async fn hold(
    callers: &[Caller],
    permits: Vec<String>,
    slots: Vec<String>,
) -> anyhow::Result<(Measured, Vec<(String, u64)>)> {
    let (callers, calls) = (callers.to_vec(), permits.len());
    closed_loop(IN_FLIGHT, calls, move |number| {
        let mut client = BookingServiceClient::new(callers[number % callers.len()].service());
        let request = HoldSlotsRequest {
            permit: permits[number].clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version: 0,
            slots: vec![slots[number % slots.len()].clone()],
        };
        async move {
            let held = client.hold_slots(request).await?.into_inner();
            Ok::<_, tonic::Status>((held.hold.unwrap_or_default().name, held.claim_version))
        }
    })
    .await
}

async fn confirm(
    callers: &[Caller],
    permits: Vec<String>,
    holds: Vec<(String, u64)>,
) -> anyhow::Result<Measured> {
    let (callers, calls) = (callers.to_vec(), permits.len());
    let confirmed = closed_loop(IN_FLIGHT, calls, move |number| {
        let mut client = BookingServiceClient::new(callers[number % callers.len()].service());
        let (hold, claim_version) = holds[number].clone();
        let request = ConfirmHoldRequest {
            permit: permits[number].clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version,
            hold,
        };
        async move { client.confirm_hold(request).await.map(drop) }
    });
    Ok(confirmed.await?.0)
}

async fn ask(callers: &[Caller], read: Read, calls: usize) -> anyhow::Result<Measured> {
    let callers = callers.to_vec();
    let asked = closed_loop(IN_FLIGHT, calls, move |number| {
        let (read, caller) = (read.clone(), callers[number % callers.len()].clone());
        async move { read.ask(&caller).await.map(drop) }
    });
    Ok(asked.await?.0)
}
