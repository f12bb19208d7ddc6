//! Where events go.

use super::event::Event;

/// Takes events. Cannot fail: a display that breaks must not break a build. May block on [`Event::Output`] only.
pub trait EventSink: Send + Sync {
    /// Takes an event that happens now.
    fn emit(&self, event: Event);

    /// Takes events that happen now, in their order; none of them is [`Event::Output`]. Who waits for events is woken once.
    fn emit_all(&self, events: Vec<Event>) {
        for event in events {
            self.emit(event);
        }
    }
}

/// Takes events and forgets them, chosen on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

impl EventSink for Discard {
    fn emit(&self, _event: Event) {}
}
