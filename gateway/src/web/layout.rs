//! What every page looks like around its content.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::text::Language;

/// A page around its content.
pub(super) struct Layout<'a> {
    pub(super) language: Language,
    /// Of the window: what the page is about, and what just happened.
    pub(super) title: String,
    /// The page's own address, for the switch of languages.
    pub(super) path: &'a str,
    /// Where changes are told.
    pub(super) live: Option<&'a str>,
    /// When the page was made, in milliseconds since 1970 by the server's clock.
    pub(super) now_ms: i64,
    /// Without scripts the page is loaded again after so many seconds.
    pub(super) reload_secs: Option<u64>,
}

impl Layout<'_> {
    /// The whole page.
    pub(super) fn around(&self, content: &Markup) -> Markup {
        let texts = self.language.texts();
        let on_board = self.path == "/";
        html! {
            (DOCTYPE)
            html lang=(self.language.tag()) data-now=(self.now_ms) data-live=[self.live] {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " – " (texts.site) }
                    link rel="icon" type="image/svg+xml" href=(assets::path("icon.svg"));
                    link rel="stylesheet" href=(assets::path("style.css"));
                    @if let Some(secs) = self.reload_secs {
                        noscript { meta http-equiv="refresh" content=(secs); }
                    }
                    script src=(assets::path("live.js")) defer {}
                }
                body {
                    a.skip href="#content" { (texts.skip_to_content) }
                    header.top {
                        div.wide {
                            p.site { a href="/" { (texts.site) } }
                            nav aria-label=(texts.nav) {
                                a href="/" aria-current=[on_board.then_some("page")] { (texts.board) }
                                a href="/clinic" aria-current=[(!on_board).then_some("true")] { (texts.clinic) }
                            }
                            (self.languages())
                        }
                    }
                    main #content tabindex="-1" { div.wide { (content) } }
                    footer.bottom { div.wide { p { (texts.footer) } } }
                    p #stale .stale role="status" hidden {
                        (texts.stale) " " a href=(self.path) { (texts.reload) }
                    }
                }
            }
        }
    }

    fn languages(&self) -> Markup {
        html! {
            nav.languages aria-label=(self.language.texts().language) {
                @for language in Language::ALL {
                    @let current = language == self.language;
                    a href={ (self.path) "?lang=" (language.tag()) } lang=(language.tag()) hreflang=(language.tag())
                        aria-current=[current.then_some("true")] { (language.own_name()) }
                }
            }
        }
    }
}

/// A page that says one thing.
pub(super) fn notice(language: Language, title: &str, help: &str, now_ms: i64) -> Markup {
    let layout = Layout {
        language,
        title: title.to_owned(),
        path: "/",
        live: None,
        now_ms,
        reload_secs: None,
    };
    layout.around(&html! {
        h1 { (title) }
        p.lead { (help) }
        p { a.button href="/" { (language.texts().board) } }
    })
}
