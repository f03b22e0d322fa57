//! Certificates of clusters' agents: enrolment and renewal go through the log, which numbers them; what state says of them
//! counts at every handshake.

use crate::cell::carry_out;
use crate::mailbox::Mailbox;
use crate::pki::Signer;
use argosy_gateway::CommandError;
use argosy_proto::agent::{
    CertificateRenewed, CertificateTaken, ControlFrame, EnrolRequest, EnrolResponse, RenewCertificateRequest,
    control_frame,
};
use argosy_proto::command::{Command, RedeemInvite, RenewIdentity, SeeIdentity, command, reply};
use argosy_telemetry::Metrics;
use std::sync::Arc;
use tonic::Status;

/// Who asks: from the certificate of its connection.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The cluster.
    pub cluster: String,
    /// Which of its certificates.
    pub generation: u64,
}

/// Why there is no certificate.
pub struct NoCertificate {
    code: String,
    message: String,
    grpc_code: tonic::Code,
}

impl NoCertificate {
    fn new(grpc_code: tonic::Code, message: impl Into<String>) -> Self {
        Self { code: String::new(), message: message.into(), grpc_code }
    }
}

impl From<NoCertificate> for Status {
    fn from(error: NoCertificate) -> Self {
        let NoCertificate { code, message, grpc_code } = error;
        let text = if code.is_empty() { message } else { format!("{code}: {message}") };
        Self::new(grpc_code, text)
    }
}

impl From<CommandError> for NoCertificate {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => Self {
                code: refusal.code,
                message: refusal.message,
                grpc_code: tonic::Code::from(i32::try_from(refusal.grpc_code).unwrap_or(2)),
            },
            CommandError::NotLeader | CommandError::Overloaded => {
                Self::new(tonic::Code::Unavailable, error.to_string())
            }
            CommandError::Unknown => Self::new(
                tonic::Code::Unavailable,
                "the outcome is unknown: try again; if the invite counts as used then, make a new one",
            ),
        }
    }
}

/// Why an invite was not redeemed, for the metrics.
fn invite_outcome(error: &CommandError) -> &'static str {
    match error {
        CommandError::Refused(refusal) => match refusal.code.as_str() {
            "ARG1013" => "refused_unknown",
            "ARG1014" => "refused_expired",
            "ARG1015" => "refused_used",
            "ARG1016" => "refused_cluster",
            _ => "refused",
        },
        CommandError::NotLeader | CommandError::Overloaded | CommandError::Unknown => "failed",
    }
}

/// Issues certificates; cheap to clone.
#[derive(Clone)]
pub struct Identities {
    /// The way to the member's thread.
    pub mailbox: Mailbox,
    /// Signs.
    pub signer: Arc<Signer>,
    /// Counters.
    pub metrics: Metrics,
}

impl Identities {
    async fn ask(&self, body: command::Body) -> Result<Option<reply::Body>, CommandError> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        Ok(carry_out(&self.mailbox, command).await?.body)
    }

    fn count(&self, kind: &'static str, outcome: &'static str) {
        self.metrics.certificates.with_label_values(&[kind, outcome]).inc();
    }

    /// A certificate for an invite.
    ///
    /// # Errors
    /// The request or the invite is not good, or nobody can decide now.
    pub async fn enrol(&self, request: EnrolRequest) -> Result<EnrolResponse, NoCertificate> {
        let EnrolRequest { cluster, cluster_uid, invite, signing_request_der } = request;
        let signing = self.signer.signing();
        // Before the invite is used up: a request that can't be signed must not cost it.
        let key = signing
            .check(&signing_request_der, &cluster)
            .map_err(|error| NoCertificate::new(tonic::Code::InvalidArgument, error.to_string()))?;
        let redeem = RedeemInvite {
            cluster: cluster.clone(),
            cluster_uid,
            token_hash: argosy_pki::invite_hash(&invite).to_vec(),
            key: key.to_vec(),
            authority: signing.fingerprint(),
        };
        // Not again: an invite works once, whatever became of the answer.
        let command =
            Command { version: 1, idempotency_key: None, body: Some(command::Body::RedeemInvite(redeem)) };
        let generation = match crate::cell::into_result(self.mailbox.command(command).await) {
            Ok(reply) => match reply.body {
                Some(reply::Body::InviteRedeemed(redeemed)) => redeemed.generation,
                _ => return Err(NoCertificate::new(tonic::Code::Internal, "unexpected answer to an invite")),
            },
            Err(error) => {
                self.metrics.agent_frames_refused.with_label_values(&["invite"]).inc();
                self.metrics.invites.with_label_values(&[invite_outcome(&error)]).inc();
                return Err(error.into());
            }
        };
        self.metrics.invites.with_label_values(&["redeemed"]).inc();
        let response = signing
            .sign(&signing_request_der, &cluster, generation)
            .map_err(|error| NoCertificate::new(tonic::Code::Internal, error.to_string()))?;
        self.count("enrolment", "issued");
        tracing::info!(cluster, generation, "enrolled a cluster");
        Ok(response)
    }

    /// The next certificate of an agent.
    ///
    /// # Errors
    /// It may have none any more, or nobody can decide now.
    pub async fn renew(
        &self,
        shown: &Shown,
        request: RenewCertificateRequest,
    ) -> Result<EnrolResponse, NoCertificate> {
        let renewed = self.try_renew(shown, request).await;
        self.count("renewal", if renewed.is_ok() { "issued" } else { "refused" });
        if let Err(error) = &renewed {
            tracing::warn!(cluster = shown.cluster, code = error.code, "no certificate: {}", error.message);
        }
        renewed
    }

    async fn try_renew(
        &self,
        shown: &Shown,
        request: RenewCertificateRequest,
    ) -> Result<EnrolResponse, NoCertificate> {
        let Shown { cluster, generation } = shown;
        let RenewCertificateRequest { signing_request_der, agent_instance, request: _, generation: holds } =
            request;
        let signing = self.signer.signing();
        let key = signing
            .check(&signing_request_der, cluster)
            .map_err(|error| NoCertificate::new(tonic::Code::InvalidArgument, error.to_string()))?;
        let renew = RenewIdentity {
            cluster: cluster.clone(),
            generation: *generation,
            holds,
            agent_instance,
            key: key.to_vec(),
            authority: signing.fingerprint(),
        };
        let generation = match self.ask(command::Body::RenewIdentity(renew)).await? {
            Some(reply::Body::IdentityRenewed(renewed)) => renewed.generation,
            Some(reply::Body::IdentityRefused(refused)) => {
                return Err(NoCertificate {
                    code: refused.code,
                    message: refused.message,
                    grpc_code: tonic::Code::PermissionDenied,
                });
            }
            _ => return Err(NoCertificate::new(tonic::Code::Internal, "unexpected answer to a renewal")),
        };
        let response = signing
            .sign(&signing_request_der, cluster, generation)
            .map_err(|error| NoCertificate::new(tonic::Code::Internal, error.to_string()))?;
        tracing::debug!(cluster, generation, "renewed an agent's certificate");
        Ok(response)
    }

    /// As [`Self::renew`], over the session: the frame that answers.
    pub async fn renew_in_session(&self, shown: &Shown, request: RenewCertificateRequest) -> ControlFrame {
        let number = request.request;
        let renewed = match self.renew(shown, request).await {
            Ok(certificate) => {
                CertificateRenewed { request: number, certificate: Some(certificate), ..Default::default() }
            }
            Err(NoCertificate { code, message, grpc_code: _ }) => {
                CertificateRenewed { request: number, certificate: None, code, message }
            }
        };
        ControlFrame {
            version: 1,
            session_epoch: 0,
            body: Some(control_frame::Body::CertificateRenewed(renewed)),
        }
    }

    /// An agent has kept its newest certificate, or trusts other authorities than before. Where this gets lost, it is said
    /// again with the next session or renewal.
    pub async fn taken(&self, shown: &Shown, taken: CertificateTaken) {
        let CertificateTaken { agent_instance, generation: holds, trusts } = taken;
        let see = SeeIdentity {
            cluster: shown.cluster.clone(),
            generation: shown.generation,
            holds,
            agent_instance,
            trusts,
        };
        if let Err(error) = self.ask(command::Body::SeeIdentity(see)).await {
            tracing::debug!(cluster = shown.cluster, %error, "what an agent has kept is not on record yet");
        }
    }
}
