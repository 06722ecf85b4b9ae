//! A person's wait for their turn.

use std::time::Duration;

use futures::future::join_all;
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{GetPlaceRequest, GetPlaceResponse, WaitReason};
use tonic::Status;

use super::super::manners::Manner;
use super::super::stats::Call;
use super::{Acting, timed};

const RELOADS_EVERY: Duration = Duration::from_secs(1);
const DEVICES: usize = 10;
/// Bookings that a person tries before their turn.
const EARLY_TRIES: u32 = 3;
/// If an answer says nothing.
const POLL_AFTER: Duration = Duration::from_secs(1);

impl Acting {
    /// Whether this person goes and books now. Otherwise they come again, or never.
    pub(super) async fn turn(&mut self) -> bool {
        if self.out.plan.admitted {
            return true;
        }
        match self.manner {
            Manner::Absent => {
                self.out.absent = true;
                return false;
            }
            // Until they have learnt that it does not help.
            Manner::BooksEarly | Manner::WrongClock
                if self.out.plan.refused_early < EARLY_TRIES =>
            {
                return true;
            }
            Manner::Patient
            | Manner::Reloads
            | Manner::TenDevices
            | Manner::Leaves
            | Manner::BooksEarly
            | Manner::WrongClock => {}
        }
        let place = match self.ask_place().await {
            Ok(place) => place,
            Err(status) => {
                self.come_again(&status);
                return false;
            }
        };
        if place.admitted {
            self.out.plan.admitted = true;
            self.arrive();
            return true;
        }
        if place.reason() == WaitReason::Exhausted {
            self.out.told = true;
            return false;
        }
        self.out.again = Some(super::super::now() + self.waits(&place));
        false
    }

    /// The person is there on their turn, for the first time.
    pub(super) fn arrive(&mut self) {
        if !self.out.plan.arrived {
            self.out.plan.arrived = true;
            self.out.arrived = Some((self.manner, super::super::now()));
        }
    }

    fn waits(&mut self, place: &GetPlaceResponse) -> Duration {
        let told = place.poll_after.as_ref();
        let told = told
            .and_then(|after| Duration::try_from(*after).ok())
            .unwrap_or(POLL_AFTER);
        match self.manner {
            Manner::Reloads => RELOADS_EVERY,
            Manner::Leaves if !self.out.plan.left => {
                self.out.plan.left = true;
                Duration::from_secs(self.rush.args.leave_secs)
            }
            Manner::Leaves
            | Manner::Patient
            | Manner::TenDevices
            | Manner::BooksEarly
            | Manner::WrongClock
            | Manner::Absent => told,
        }
    }

    /// With as many devices as the person has; they are one person in one place.
    async fn ask_place(&mut self) -> Result<GetPlaceResponse, Status> {
        if self.manner != Manner::TenDevices {
            let request = GetPlaceRequest {
                permit: self.permit.clone(),
            };
            let mut client = RoomServiceClient::new(self.channel.clone());
            return self
                .call(Call::GetPlace, client.get_place(timed(request)))
                .await;
        }
        let asks = (0..DEVICES).map(|_| {
            let mut client = RoomServiceClient::new(self.channel.clone());
            let request = timed(GetPlaceRequest {
                permit: self.permit.clone(),
            });
            async move { client.get_place(request).await }
        });
        let mut answers = join_all(asks).await;
        let last = answers.pop().unwrap_or_else(|| Err(Status::cancelled("")));
        // The best of ten answers, should they differ.
        let admitted = answers.into_iter().find(|answer| {
            answer
                .as_ref()
                .is_ok_and(|answer| answer.get_ref().admitted)
        });
        self.call(Call::GetPlace, std::future::ready(admitted.unwrap_or(last)))
            .await
    }
}
