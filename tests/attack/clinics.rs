//! Clinics to be attacked, and the names of their slots.

use jiff::{ToSpan as _, civil};
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{ApplyClinicsRequest, ClinicSpec, SlotSpec, StockSpec};
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use system_tests::await_until::await_until;

use crate::world::{HEARD_WITHIN, World, channel};

/// A slot to be made: the dose, in how many days, and for how many people.
pub(crate) type Wanted = (u32, i32, u32);

/// The day so many days from now, where the clinics are.
pub(crate) fn day(from_now: i32) -> anyhow::Result<civil::Date> {
    let now = jiff::Timestamp::from_microsecond(crate::signing::now().as_micros())?;
    Ok(jiff::tz::Offset::constant(9)
        .to_datetime(now)
        .date()
        .checked_add(from_now.days())?)
}

impl World {
    /// Makes a clinic and waits until every gateway shows it; answers its slots' names in the order wanted.
    pub(crate) async fn clinic(
        &self,
        region: &str,
        clinic: &str,
        vaccine: &str,
        wanted: &[Wanted],
    ) -> anyhow::Result<Vec<String>> {
        let mut slots = Vec::new();
        for (at, (dose, days, capacity)) in wanted.iter().enumerate() {
            let day = day(*days)?;
            slots.push(SlotSpec {
                starts_at: format!("{day}T{:02}:00:00+09:00", 8 + at),
                day: day.to_string(),
                vaccine: vaccine.to_owned(),
                dose: *dose,
                capacity: *capacity,
                closed: false,
            });
        }
        let received = slots.iter().map(|slot| slot.capacity).sum();
        let spec = ClinicSpec {
            clinic: clinic.to_owned(),
            display_name: format!("{clinic} (synthetic)"),
            district: "jongno".to_owned(),
            latitude: 37.5,
            longitude: 127.0,
            shard: None,
            stock: vec![StockSpec {
                vaccine: vaccine.to_owned(),
                received,
            }],
            slots,
        };
        let mut admin = ClinicAdminServiceClient::new(channel(&self.cluster.inventories[0].admin)?);
        let request = ApplyClinicsRequest {
            region: region.to_owned(),
            clinics: vec![spec],
            validate_only: false,
        };
        admin.apply_clinics(request).await?;
        self.await_shown(region, clinic, wanted.len()).await?;
        // The hour of the day is the order they were wanted in; databases here live in UTC.
        let rows = self
            .ledger(region)
            .await?
            .query("SELECT slot_id FROM slot WHERE clinic = $1 ORDER BY extract(hour FROM starts_at + interval '9 hours')", &[&clinic])
            .await?;
        let name = |id: i64| format!("regions/{region}/clinics/{clinic}/slots/{id}");
        Ok(rows.iter().map(|row| name(row.get(0))).collect())
    }

    async fn await_shown(&self, region: &str, clinic: &str, count: usize) -> anyhow::Result<()> {
        for gateway in self.gateways() {
            await_until(&format!("{clinic} is shown"), HEARD_WITHIN, || async {
                let request = ListSlotsRequest {
                    region: region.to_owned(),
                    clinic: format!("regions/{region}/clinics/{clinic}"),
                    include_full: true,
                    ..ListSlotsRequest::default()
                };
                let listed = AvailabilityServiceClient::new(gateway.clone())
                    .list_slots(request)
                    .await;
                listed.is_ok_and(|page| page.into_inner().slots.len() == count)
            })
            .await?;
        }
        Ok(())
    }
}

/// The number at the end of a slot's name.
pub(crate) fn slot_number(name: &str) -> anyhow::Result<i64> {
    Ok(name.rsplit('/').next().unwrap_or_default().parse()?)
}
