//! What every ledger must do: one suite, run against SQLite and against PostgreSQL.
//!
//! A case gets an empty ledger; when it ends, counts, claims and rows are held against each other.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

#[path = "ledger_contract/backends.rs"]
pub mod backends;
#[path = "ledger_contract/clinics.rs"]
pub mod clinics;
#[path = "ledger_contract/decisions.rs"]
pub mod decisions;
#[path = "ledger_contract/departures.rs"]
pub mod departures;
#[path = "ledger_contract/desk.rs"]
pub mod desk;
#[path = "ledger_contract/dice.rs"]
pub mod dice;
#[path = "ledger_contract/fencing.rs"]
pub mod fencing;
#[path = "ledger_contract/holds.rs"]
pub mod holds;
#[path = "ledger_contract/incidents.rs"]
pub mod incidents;
#[path = "ledger_contract/leftover_doses.rs"]
pub mod leftover_doses;
#[path = "ledger_contract/leftovers.rs"]
pub mod leftovers;
#[path = "ledger_contract/model.rs"]
pub mod model;
#[path = "ledger_contract/moves.rs"]
pub mod moves;
#[path = "ledger_contract/pairs.rs"]
pub mod pairs;
#[path = "support/postgres.rs"]
pub mod postgres_server;
#[path = "ledger_contract/race.rs"]
pub mod race;
#[path = "ledger_contract/random.rs"]
pub mod random;
#[path = "ledger_contract/reads.rs"]
pub mod reads;
#[path = "ledger_contract/replays.rs"]
pub mod replays;
#[path = "ledger_contract/supply.rs"]
pub mod supply;
#[path = "ledger_contract/visits.rs"]
pub mod visits;
#[path = "ledger_contract/world.rs"]
pub mod world;

macro_rules! on_both_backends {
    ($($subject:ident { $($case:ident)+ })+) => {
        on_both_backends!(@ sqlite $($subject { $($case)+ })+);
        on_both_backends!(@ postgres $($subject { $($case)+ })+);
    };
    (@ $backend:ident $($subject:ident { $($case:ident)+ })+) => {
        mod $backend {
            $(mod $subject {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        let world = crate::backends::$backend().await;
                        Box::pin(crate::$subject::$case(&world)).await;
                        world.check().await;
                    }
                )+
            })+
        }
    };
}

on_both_backends! {
    decisions {
        a_booking_takes_a_place_and_is_recorded
        the_request_id_is_looked_up_before_everything_else
        an_older_permit_is_refused_before_the_state_of_the_claim
        a_newer_permit_raises_the_serial_only_when_its_op_succeeds
        an_existing_booking_is_told_before_a_stale_version
        a_live_hold_is_told_before_a_stale_version
        a_stale_version_is_told_before_anything_about_slots
        slots_are_judged_unknown_then_wrong_shard_then_closed_then_full
        a_refusal_writes_nothing_and_its_request_id_may_still_succeed
        a_batch_is_answered_op_by_op_and_each_slot_once
        an_empty_batch_uses_its_number_and_changes_nothing
        people_and_campaigns_do_not_share_request_ids
    }
    replays {
        a_repeated_request_gets_the_recorded_answer_and_changes_nothing
        a_booking_repeated_after_its_cancellation_is_still_answered_as_made
        a_delayed_duplicate_after_a_cancellation_is_stale
        a_repeated_move_or_cancellation_gets_the_recorded_answer
        one_request_id_serves_one_intent_over_all_methods
        a_hold_repeated_after_its_end_is_answered_as_made
    }
    holds {
        a_held_place_is_taken_until_it_is_released
        a_confirmed_hold_is_a_booking_of_the_same_id
        a_hold_that_never_was_is_unknown
        a_released_hold_is_unknown_afterwards
        an_expired_hold_cannot_be_confirmed_or_released
        whoever_meets_an_expired_hold_gives_it_back_even_when_refused
        after_an_expired_hold_the_person_may_hold_or_book_again
        an_expired_hold_in_the_same_slot_makes_room_for_its_own_person
        a_place_given_back_in_a_batch_goes_to_a_later_op_of_it
        an_expired_hold_reads_as_free_before_anyone_gave_it_back
        a_sweep_gives_back_expired_holds_of_its_shard_up_to_a_limit
        a_hold_is_settled_by_the_shard_of_its_slots
        an_older_permit_does_not_end_an_expired_hold
    }
    pairs {
        two_doses_are_taken_together_or_not_at_all
        the_last_place_goes_to_the_first_op_of_a_batch
        a_refused_pair_leaves_its_first_place_to_the_next_op
        a_pair_that_was_held_is_confirmed_or_expires_as_one
    }
    moves {
        a_move_takes_the_new_place_and_then_gives_the_old_one_up
        a_move_is_refused_by_the_claim_before_the_slots
        a_move_is_refused_by_its_target_in_order
        one_dose_moves_and_the_other_stays
        an_appointment_may_return_to_a_slot_it_left
        a_move_needs_the_epoch_in_force
        a_cancelled_booking_gives_every_place_back
        one_dose_is_cancelled_and_the_other_stays
        a_cancellation_is_refused_by_booking_then_version_then_dose
        a_move_or_cancellation_that_meets_an_expired_hold_gives_it_back
    }
    fencing {
        a_seizure_raises_the_epoch_and_tells_what_was_before
        a_seizure_of_another_epoch_than_expected_is_fenced
        the_epoch_lies_above_the_floor
        a_seizure_repeated_with_its_nonce_has_the_same_result
        an_old_owner_writes_nothing
        a_batch_with_another_number_than_the_next_is_refused_and_uses_none_up
        a_failed_batch_leaves_no_trace
        a_takeover_under_load_counts_every_acknowledged_batch
        shards_are_added_and_never_reset
        a_shard_that_does_not_exist_cannot_be_seized
    }
    reads {
        recorded_requests_are_answered_in_the_order_asked
        slots_that_do_not_exist_are_left_out
        a_catalogue_has_the_clinics_and_slots_of_its_shard
        a_person_without_a_change_has_no_claim
        the_outbox_tells_what_owners_did_not_do_themselves
        the_outbox_is_read_in_pieces_without_loss
        the_outbox_has_no_gap_while_many_write
        a_newer_room_replaces_an_older_one_and_never_the_reverse
        closed_buckets_are_kept_as_they_were_first_seen
    }
    supply {
        an_application_repeated_changes_nothing
        places_cannot_be_opened_beyond_stock
        a_vaccine_that_never_came_opens_nothing
        doses_received_only_rise
        a_capacity_is_never_set_below_the_people_booked
        the_first_clinic_that_breaks_a_rule_is_named
        a_dry_run_says_what_would_happen_and_writes_nothing
        a_closed_slot_keeps_its_people_and_takes_no_more
        closing_frees_stock_that_nobody_booked
        a_clinic_keeps_its_shard_and_changes_its_name
        an_application_does_not_disturb_the_owner
    }
    clinics {
        a_terminals_change_is_recorded_and_repeated
        wastage_closes_what_nobody_has_and_tells_what_is_short
        walk_ins_are_set_aside_within_stock_and_given_from_it
        a_template_is_opened_whole_or_not_at_all
        a_slot_is_not_made_smaller_than_the_people_it_has
        closed_slots_keep_their_people_and_give_their_stock_back
        supply_figures_add_up
        many_who_open_at_once_never_exceed_the_stock
    }
    visits {
        a_visit_is_checked_in_and_the_dose_counted
        a_visit_is_refused_with_what_is_wrong_about_it
        an_appointment_that_has_begun_is_neither_moved_nor_cancelled
        a_cancelled_appointment_is_over_at_the_desk
        a_day_sheet_is_read_in_pages_without_loss
    }
    incidents {
        an_incident_closes_slots_at_once_and_lists_who_is_booked
        a_scene_has_who_is_booked_now_and_what_is_free
        a_plan_is_applied_once_and_only_while_it_is_the_last_one
        whoever_moves_first_wins_and_the_line_says_so
        the_second_dose_moves_after_the_first_at_the_version_it_left
        only_the_clinic_it_happened_to_changes_an_incident
    }
    departures {
        a_person_without_a_claim_leaves_once_for_ever
        a_hold_is_released_by_leaving_and_its_owner_is_told
        a_booking_is_given_up_only_when_that_is_said
        an_appointment_that_has_begun_is_never_given_up
        a_change_taken_back_keeps_what_the_person_has
        a_change_taken_back_without_a_claim_bars_the_old_permit_alone
        an_earlier_departure_does_not_bar_one_who_came_back_and_stays
        whatever_order_messages_come_in_each_serial_is_decided_once
        who_books_leaves_and_stays_at_once_gets_one_decision
    }
    leftovers {
        a_round_is_drawn_among_those_who_asked_before_and_holds_in_the_audit
        an_accepted_dose_is_a_booking_like_any_other
        what_is_declined_expired_or_left_goes_to_the_next_in_order
        an_answer_is_refused_with_its_reason_and_changes_nothing
        an_answer_after_the_deadline_is_too_late_by_the_ledgers_clock
        joining_and_leaving_are_recorded_and_repeated
    }
    leftover_doses {
        doses_come_from_what_nothing_is_promised_of
        doses_of_people_who_did_not_come_are_offered_once
        promised_doses_are_not_given_otherwise_and_come_back_at_the_end
        doses_that_spoiled_are_not_accepted_any_more
        of_300_who_race_for_9_doses_at_most_9_get_one
    }
    random {
        random_requests_are_answered_as_the_model_says
    }
    race {
        of_2000_who_race_for_500_places_exactly_500_get_one
        moves_in_the_middle_of_the_race_never_oversell_or_lose_a_place
    }
}
