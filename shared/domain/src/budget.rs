//! Money's seam: no provider is called without a [`Reservation`], and none is forgotten.
//!
//! A `Reservation` is minted only by the ledger (`store::ledger`; its constructor is a disallowed method
//! elsewhere), is not `Clone`, and is spent by a billable provider call, which always gives back a
//! [`Receipt`]. Only the ledger consumes receipts.

use crate::Nano;

/// The right to make one billable provider call, up to `amount`.
#[derive(Debug)]
#[must_use = "a reservation holds money until the ledger settles or releases it"]
pub struct Reservation {
    id: String,
    amount: Nano,
}

impl Reservation {
    /// Mints a reservation. Only the ledger may call this.
    pub fn mint(id: String, amount: Nano) -> Self {
        Self { id, amount }
    }

    /// The id: that of the job or request it pays for.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The most that the call may cost the customer.
    pub fn amount(&self) -> Nano {
        self.amount
    }

    /// The receipt for a call that ended as `billing` says.
    pub fn receipt(self, billing: Billing) -> Receipt {
        Receipt { reservation: self, billing }
    }
}

/// What a provider may bill the operator for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Billing {
    /// The provider provably did not get the request.
    NotSent,
    /// The provider got it and refused it, or failed by its own word: it bills nothing, and asking again is the client's to decide.
    Refused,
    /// The provider may have got it; whether it bills is not known.
    MaybeBilled,
    /// The provider did the work and reported this use.
    Billed(Usage),
}

/// A billable call whose answer has begun: the provider has the request, the end is still open.
#[derive(Debug)]
#[must_use = "an open call must end in a receipt"]
pub struct OpenCall(Reservation);

impl OpenCall {
    /// The provider answered the call that `reservation` pays for; the body follows.
    pub fn new(reservation: Reservation) -> Self {
        Self(reservation)
    }

    /// The body ended; `usage` is what it cost, the provider's count or our estimate.
    pub fn billed(self, usage: Usage) -> Receipt {
        self.0.receipt(Billing::Billed(usage))
    }

    /// The body never made sense; what the provider bills is not known.
    pub fn maybe_billed(self) -> Receipt {
        self.0.receipt(Billing::MaybeBilled)
    }
}

/// A submit that was about to be sent, or was: nobody knows whether the provider has it.
#[derive(Debug)]
#[must_use = "an unknown outcome must be repeated, reconciled or ended"]
pub struct Intent(Reservation);

impl Intent {
    /// The intent that was recorded before the call that `reservation` paid for.
    pub fn new(reservation: Reservation) -> Self {
        Self(reservation)
    }

    /// The same reservation for the same submit under the same idempotency key.
    ///
    /// # Errors
    /// Gives the intent back when the provider takes no idempotency key: a second submit could cost twice.
    pub fn repeat(self, idempotent_submit: bool) -> Result<Reservation, Self> {
        if idempotent_submit { Ok(self.0) } else { Err(self) }
    }
}

/// What was used, in the provider's own units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written, reasoning included.
    pub output_tokens: u64,
    /// Input tokens that the provider served from its own cache.
    pub cached_tokens: u64,
    /// The provider sent no usage: this is our own count, `ceil(bytes / 4)`.
    pub estimated: bool,
}

/// A reservation after its call: what must be settled or released.
#[derive(Debug)]
#[must_use = "only the ledger consumes receipts"]
pub struct Receipt {
    reservation: Reservation,
    billing: Billing,
}

impl Receipt {
    /// The id of the reservation.
    pub fn id(&self) -> &str {
        self.reservation.id()
    }

    /// What the provider may bill.
    pub fn billing(&self) -> &Billing {
        &self.billing
    }

    /// What the provider may bill, for the ledger to book.
    pub fn into_billing(self) -> Billing {
        self.billing
    }

    /// The same reservation for another try, when the first provably never reached the provider.
    ///
    /// # Errors
    /// Gives the receipt back when the call may have been billed: then no retry is free of risk.
    pub fn retry(self) -> Result<Reservation, Self> {
        if self.billing == Billing::NotSent { Ok(self.reservation) } else { Err(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
    fn only_a_call_that_was_not_sent_may_be_tried_again() {
        let mint = || Reservation::mint("req_1".into(), Nano::ZERO);
        assert!(mint().receipt(Billing::NotSent).retry().is_ok());
        assert!(mint().receipt(Billing::MaybeBilled).retry().is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
    fn an_unknown_outcome_is_repeated_only_under_an_idempotency_key() {
        let intent = || Intent::new(Reservation::mint("job_1".into(), Nano::ZERO));
        assert!(intent().repeat(true).is_ok());
        assert!(intent().repeat(false).is_err());
    }
}
