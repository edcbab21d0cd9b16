//! Why a cluster does not let the pod in: what the API server says, and which policy that is.

use std::fmt;

/// A pod that a policy of the cluster refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The policy, in words that fit after "refused by".
    pub policy: String,
    /// What it objects to, as the API server says it.
    pub reason: String,
    /// What would help.
    pub advice: String,
    /// Whether there is too little left, and not something wrong with the pod.
    pub is_of_quota: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, reason, advice, .. } = self;
        write!(f, "the pod is refused by {policy}: {reason}\n  {advice}")
    }
}

impl Refusal {
    /// Reads what the API server says of a pod in `namespace`; nothing where it is not a policy that refuses.
    #[must_use]
    pub fn of(message: &str, namespace: &str) -> Option<Self> {
        let readers = [
            pod_security,
            pod_security_policy,
            security_context_constraint,
            admission_policy,
            webhook,
            quota,
        ];
        readers.iter().find_map(|read| read(message, namespace)).or_else(|| limit_range(message, namespace))
    }
}

/// `… violates PodSecurity "restricted:latest": privileged (container "edge" must not set …)`
fn pod_security(message: &str, namespace: &str) -> Option<Refusal> {
    let (_, rest) = message.split_once("violates PodSecurity \"")?;
    let (level, rest) = rest.split_once('"')?;
    let level = level.split(':').next().unwrap_or(level);
    Some(Refusal {
        policy: format!("the Pod Security level `{level}` of the namespace `{namespace}`"),
        reason: rest.trim_start_matches(": ").to_owned(),
        advice: allow_privileged(namespace),
        is_of_quota: false,
    })
}

/// How the owner of a namespace lets the pod in.
fn allow_privileged(namespace: &str) -> String {
    format!(
        "the pod needs the level `privileged` in every tier but `sysbox`; if it may have that, label the namespace: \
         `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`"
    )
}

/// `… is forbidden: PodSecurityPolicy: unable to admit pod: [… Privileged containers are not allowed]`
fn pod_security_policy(message: &str, namespace: &str) -> Option<Refusal> {
    let found = message.find("PodSecurityPolicy: ").map(|at| at + "PodSecurityPolicy: ".len());
    let found = found.or_else(|| message.find("unable to validate against any pod security policy"))?;
    Some(Refusal {
        policy: "PodSecurityPolicy".into(),
        reason: message[found..].to_owned(),
        advice: format!(
            "the pod needs more rights (see `[security] tier`); if it may have them, let the service account `default` of the namespace `{namespace}` use a \
             PodSecurityPolicy with `privileged: true`, by a RoleBinding"
        ),
        is_of_quota: false,
    })
}

/// OpenShift's `unable to validate against any security context constraint: […]`
fn security_context_constraint(message: &str, namespace: &str) -> Option<Refusal> {
    let found = message.find("unable to validate against any security context constraint")?;
    Some(Refusal {
        policy: "the security context constraints of OpenShift".into(),
        reason: message[found..].to_owned(),
        advice: format!(
            "the pod needs more rights (see `[security] tier`); if it may have them: `oc adm policy add-scc-to-user privileged -z default -n {namespace}`"
        ),
        is_of_quota: false,
    })
}

/// `… ValidatingAdmissionPolicy 'no-privileged' with binding 'b' denied request: …`
fn admission_policy(message: &str, namespace: &str) -> Option<Refusal> {
    let (_, rest) = message.split_once("ValidatingAdmissionPolicy '")?;
    let (name, rest) = rest.split_once('\'')?;
    let reason = rest.split_once("denied request: ").map_or(rest, |(_, reason)| reason);
    Some(Refusal {
        policy: format!("the ValidatingAdmissionPolicy `{name}`"),
        reason: reason.to_owned(),
        advice: exempt(namespace),
        is_of_quota: false,
    })
}

/// `admission webhook "validation.gatekeeper.sh" denied the request: [azurepolicy-…] Privileged container is not allowed: …`
fn webhook(message: &str, namespace: &str) -> Option<Refusal> {
    let (_, rest) = message.split_once("admission webhook \"")?;
    let (name, rest) = rest.split_once('"')?;
    let reason = rest.split_once("denied the request: ")?.1.trim();
    let rule = reason.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(rule, _)| rule);
    let policy = match rule {
        Some(rule) if rule.starts_with("azurepolicy-") => format!("Azure Policy, by its constraint `{rule}`"),
        Some(rule) if name.contains("gatekeeper") => format!("Gatekeeper, by its constraint `{rule}`"),
        _ => format!("the admission webhook `{name}`"),
    };
    Some(Refusal { policy, reason: reason.to_owned(), advice: exempt(namespace), is_of_quota: false })
}

fn exempt(namespace: &str) -> String {
    format!(
        "the pod needs more rights (see `[security] tier`); if it may have them, have the namespace `{namespace}` exempted from that policy"
    )
}

/// `exceeded quota: small, requested: …`, or `failed quota: small: must specify limits.memory`
fn quota(message: &str, namespace: &str) -> Option<Refusal> {
    let (at, kind) =
        ["exceeded quota: ", "failed quota: "].iter().find_map(|kind| Some((message.find(kind)?, kind)))?;
    let rest = &message[at + kind.len()..];
    let name = rest.split([',', ':']).next().unwrap_or(rest);
    let advice = if rest.contains("must specify") {
        "set `memory-limit` in [deploy] of the settings, and what else the quota asks for in \
         `manifests/kedgedeployment.yaml`"
            .to_owned()
    } else {
        "ask for less in [deploy] of the settings, or have the quota enlarged".to_owned()
    };
    Some(Refusal {
        policy: format!("the ResourceQuota `{name}` of the namespace `{namespace}`"),
        reason: message[at..].to_owned(),
        advice,
        is_of_quota: kind.starts_with("exceeded"),
    })
}

/// `maximum memory usage per Container is 1Gi, but limit is 2Gi`
fn limit_range(message: &str, namespace: &str) -> Option<Refusal> {
    let is_limit = ["maximum ", "minimum "].iter().any(|word| message.contains(word))
        && ["per Container is", "per Pod is", "limit to request ratio per"]
            .iter()
            .any(|word| message.contains(word));
    is_limit.then(|| Refusal {
        policy: format!("a LimitRange of the namespace `{namespace}`"),
        reason: message.split_once("is forbidden: ").map_or(message, |(_, reason)| reason).to_owned(),
        advice: "change `cpu`, `memory` or `memory-limit` in [deploy] of the settings accordingly".into(),
        is_of_quota: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What API servers of several versions and policy engines really say.
    const MESSAGES: [(&str, &str, &str); 12] = [
        (
            "pods \"kedge-7cf475f6dc-vv5pp\" is forbidden: violates PodSecurity \"restricted:latest\": privileged (container \"edge\" must not set securityContext.privileged=true), allowPrivilegeEscalation != false (container \"edge\" must set securityContext.allowPrivilegeEscalation=false)",
            "the Pod Security level `restricted` of the namespace `edge`",
            "pod-security.kubernetes.io/enforce=privileged",
        ),
        (
            "pods \"kedge-x\" is forbidden: violates PodSecurity \"baseline:v1.31\": privileged (container \"edge\" must not set securityContext.privileged=true)",
            "the Pod Security level `baseline` of the namespace `edge`",
            "kubectl label namespace edge",
        ),
        (
            "pods \"kedge-7d\" is forbidden: PodSecurityPolicy: unable to admit pod: [spec.containers[0].securityContext.privileged: Invalid value: true: Privileged containers are not allowed]",
            "PodSecurityPolicy",
            "service account `default` of the namespace `edge`",
        ),
        (
            "pods \"kedge-7d\" is forbidden: PodSecurityPolicy: no providers available to validate pod request",
            "PodSecurityPolicy",
            "RoleBinding",
        ),
        (
            "pods \"kedge-7d\" is forbidden: unable to validate against any pod security policy: [spec.containers[0].securityContext.privileged: Invalid value: true: Privileged containers are not allowed]",
            "PodSecurityPolicy",
            "RoleBinding",
        ),
        (
            "pods \"kedge-7d\" is forbidden: unable to validate against any security context constraint: [provider \"anyuid\": Forbidden: not usable by user or serviceaccount, spec.containers[0].securityContext.privileged: Invalid value: true: Privileged containers are not allowed]",
            "the security context constraints of OpenShift",
            "add-scc-to-user privileged -z default -n edge",
        ),
        (
            "admission webhook \"validation.gatekeeper.sh\" denied the request: [azurepolicy-k8sazurev2noprivilege-19124c6401684452c142] Privileged container is not allowed: edge, securityContext: {\"privileged\": true}",
            "Azure Policy, by its constraint `azurepolicy-k8sazurev2noprivilege-19124c6401684452c142`",
            "exempted",
        ),
        (
            "admission webhook \"validation.gatekeeper.sh\" denied the request: [psp-privileged-container] Privileged container is not allowed: edge",
            "Gatekeeper, by its constraint `psp-privileged-container`",
            "exempted",
        ),
        (
            "admission webhook \"validate.kyverno.svc-fail\" denied the request: \n\nresource Pod/edge/kedge was blocked due to the following policies",
            "the admission webhook `validate.kyverno.svc-fail`",
            "exempted",
        ),
        (
            "pods \"kedge-x\" is forbidden: ValidatingAdmissionPolicy 'no-privileged' with binding 'all' denied request: privileged containers are not allowed",
            "the ValidatingAdmissionPolicy `no-privileged`",
            "exempted",
        ),
        (
            "pods \"kedge-x\" is forbidden: exceeded quota: small, requested: requests.memory=256Mi, used: requests.memory=0, limited: requests.memory=128Mi",
            "the ResourceQuota `small` of the namespace `edge`",
            "ask for less",
        ),
        (
            "pods \"kedge-x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            "a LimitRange of the namespace `edge`",
            "memory-limit",
        ),
    ];

    #[test]
    fn the_policy_is_named_with_what_helps() {
        for (message, policy, advice) in MESSAGES {
            let refusal = Refusal::of(message, "edge").unwrap_or_else(|| panic!("{message}"));
            assert_eq!(refusal.policy, policy);
            assert!(refusal.advice.contains(advice), "{refusal}");
            assert!(!refusal.reason.is_empty() && message.contains(&refusal.reason), "{refusal}");
        }
        let failed = "pods \"x\" is forbidden: failed quota: q: must specify limits.memory";
        assert!(Refusal::of(failed, "edge").unwrap().advice.contains("memory-limit"));
    }

    #[test]
    fn other_trouble_is_no_policy() {
        for message in [
            "pods \"kedge-x\" is forbidden: error looking up service account edge/default: serviceaccount \"default\" not found",
            "Internal error occurred: failed calling webhook \"validation.gatekeeper.sh\": context deadline exceeded",
            "the server is currently unable to handle the request",
            "",
        ] {
            assert_eq!(Refusal::of(message, "edge"), None, "{message}");
        }
    }
}
