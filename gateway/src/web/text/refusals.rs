//! Why something was refused and what to do, for people at a clinic's screen.

use domain::Refusal;
use proto::status::Refused;

use super::Language;

/// A refusal as a page tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::web) struct Told {
    /// The stable reason.
    pub(in crate::web) code: &'static str,
    /// What happened and what to do.
    pub(in crate::web) help: &'static str,
    /// Whether `help` is in the page's language.
    pub(in crate::web) translated: bool,
    /// What is wrong with which field, or the figures that the refusal names; in English.
    pub(in crate::web) details: Vec<String>,
}

/// What a page says of a refusal.
pub(in crate::web) fn told(language: Language, refused: &Refused) -> Told {
    let refusal = refused.refusal;
    let translation = match language {
        Language::English => None,
        Language::Korean => korean(refusal),
    };
    Told {
        code: refusal.code(),
        help: translation.unwrap_or(refusal.help()),
        translated: language == Language::English || translation.is_some(),
        details: refused
            .violations
            .iter()
            .map(|(field, problem)| format!("{field}: {problem}"))
            .collect(),
    }
}

/// What clinics' screens can meet; anything else is told in English.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "refusals of the booking path are not met at a clinic's screen"
)]
const fn korean(refusal: Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::Invalid => {
            "입력한 내용이 올바르지 않습니다. 자세한 내용을 확인하고 고쳐서 다시 보내 주세요."
        }
        Refusal::RequestIdReused => {
            "이 화면의 요청은 이미 다른 내용으로 처리되었습니다. 페이지를 새로고침한 뒤 다시 시도해 주세요."
        }
        Refusal::PageTokenInvalid => "목록을 이어서 볼 수 없습니다. 처음부터 다시 열어 주세요.",
        Refusal::CallerUnknown => {
            "기관을 확인할 수 없습니다. 발급받은 인증 정보를 다시 확인해 주세요."
        }
        Refusal::CallerForbidden => "이 인증 정보로는 의료기관 화면을 사용할 수 없습니다.",
        Refusal::ClinicUnknown => "이 지역에 그런 의료기관이 없습니다.",
        Refusal::ClinicForeign => {
            "다른 의료기관의 정보입니다. 자기 기관의 정보만 보고 바꿀 수 있습니다."
        }
        Refusal::SlotUnknown => "이 기관에 그런 예약 자리가 없습니다.",
        Refusal::SlotClosed => "닫혔거나 이미 시작된 자리입니다.",
        Refusal::SlotExists => "같은 시각, 백신, 차수의 자리가 이미 열려 있습니다.",
        Refusal::InThePast => "서버 시각으로 이미 지난 날짜 또는 시각입니다.",
        Refusal::StockExceeded => "보유한 백신보다 많은 수량입니다.",
        Refusal::BelowBooked => "이미 예약된 인원보다 적게 줄일 수 없습니다.",
        Refusal::WalkInsExceeded => {
            "현장용 수량보다 많이 접종할 수 없습니다. 먼저 현장용 수량을 늘려 주세요."
        }
        Refusal::CodeUnknown => {
            "이 기관의 예약에도, 오늘 이 지역의 예약에도 없는 번호입니다. 번호를 다시 확인해 주세요."
        }
        Refusal::AppointmentElsewhere => "오늘 이 지역의 다른 의료기관에 예약되어 있습니다.",
        Refusal::AppointmentOtherDay => {
            "이 기관에 다른 날짜로 예약되어 있습니다. 날짜는 자세한 내용을 확인해 주세요."
        }
        Refusal::VaccineMismatch => "다른 백신으로 예약되어 있습니다. 자세한 내용을 확인해 주세요.",
        Refusal::DoseMismatch => "다른 차수로 예약되어 있습니다. 자세한 내용을 확인해 주세요.",
        Refusal::NotCheckedIn => "아직 접수되지 않았습니다. 먼저 접수해 주세요.",
        Refusal::AppointmentOver => "취소 또는 변경되었거나 이미 접종을 마친 예약입니다.",
        Refusal::AppointmentBegun => "이미 접수되었거나 접종을 마쳐 변경할 수 없습니다.",
        Refusal::CursorExpired => "화면이 오래되었습니다. 새로고침해 주세요.",
        Refusal::Overloaded => "지금은 요청이 많습니다. 잠시 후 같은 화면에서 다시 보내 주세요.",
        Refusal::RateLimited => "요청이 너무 잦습니다. 잠시 후 다시 시도해 주세요.",
        Refusal::Unavailable => {
            "시스템의 일부에 연결할 수 없습니다. 잠시 후 같은 화면에서 다시 보내 주세요."
        }
        Refusal::OutcomeUnknown => {
            "제시간에 결과를 확인하지 못했습니다. 같은 화면에서 다시 보내면 두 번 기록되지 않습니다."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clinic_can_meet_is_told_in_its_language() {
        let met = [
            "INVALID_REQUEST",
            "REQUEST_ID_REUSED",
            "CALLER_UNKNOWN",
            "CALLER_FORBIDDEN",
            "CLINIC_UNKNOWN",
            "CLINIC_FOREIGN",
            "IN_THE_PAST",
            "STOCK_EXCEEDED",
            "WALK_INS_EXCEEDED",
            "CODE_UNKNOWN",
            "APPOINTMENT_ELSEWHERE",
            "APPOINTMENT_OTHER_DAY",
            "VACCINE_MISMATCH",
            "DOSE_MISMATCH",
            "NOT_CHECKED_IN",
            "APPOINTMENT_OVER",
            "APPOINTMENT_BEGUN",
            "OVERLOADED",
            "UNAVAILABLE",
            "OUTCOME_UNKNOWN",
        ];
        for code in met {
            let refusal = Refusal::from_code(code).expect(code);
            let [korean, english] = Language::ALL.map(|language| told(language, &refusal.into()));
            assert!(korean.translated && english.translated, "{code}");
            assert_ne!(korean.help, english.help, "{code}");
        }
    }
}
