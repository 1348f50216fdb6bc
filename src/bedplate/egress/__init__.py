"""The broker for outbound calls: the one way out of a trusted process.

What is not on the allow-list is not called; a name is resolved once and the connection goes to an address that was
checked; nothing follows a redirect to another origin; time, size and number of calls have limits.

=================  ==============================================================================
:mod:`.targets`    :class:`Target`: what may be called, and which addresses it may have
:mod:`.broker`     :class:`Broker`: one call, from the resolved address to the last byte of the answer
=================  ==============================================================================
"""

from bedplate.egress.broker import Answer, Broker, Limits
from bedplate.egress.targets import Target, allow

__all__ = ["Answer", "Broker", "Limits", "Target", "allow"]
