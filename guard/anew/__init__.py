"""A model's whole answer written anew with what its grounding says, on each wire on which that can be done."""

from guard.anew.chat import CHAT_FORM
from guard.anew.completions import COMPLETIONS_FORM, completions_events
from guard.anew.form import Form
from guard.anew.messages import MESSAGES_FORM
from guard.anew.responses import RESPONSES_FORM
from guard.wires.messages import messages_events
from guard.wires.responses_stream import responses_events

FORMS: dict[str, Form] = {
    "chat": CHAT_FORM,
    "completions": COMPLETIONS_FORM,
    "messages": MESSAGES_FORM,
    "responses": RESPONSES_FORM,
}
"""By the wire's endpoint."""

AS_EVENTS = {"completions": completions_events, "messages": messages_events, "responses": responses_events}
"""How a whole answer becomes a stream, on wires whose own streams are not written anew."""

__all__ = ["AS_EVENTS", "FORMS", "Form"]
