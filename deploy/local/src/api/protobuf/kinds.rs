//! The numbers of fields, from the `generated.proto` files of k8s.io/api and k8s.io/apimachinery.

use super::Field;
use super::Kind::{
    BytesMap, Flag, MaybeFlag, MaybeNumber, MaybeText, Message, Messages, Number, Port, Skipped, Text, TextMap, Texts,
};

macro_rules! fields {
    ($($number:literal $name:literal $kind:expr;)*) => { &[$(Field { number: $number, name: $name, kind: $kind }),*] };
}

/// The fields of a kind's own message.
pub fn fields(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Service") => SERVICE,
        ("apps/v1", "Deployment") => DEPLOYMENT,
        ("rbac.authorization.k8s.io/v1", "Role") => ROLE,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding" | "ClusterRoleBinding") => ROLE_BINDING,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SELF_SUBJECT_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        _ => return None,
    })
}

const OBJECT_META: &[Field] = fields! {
    1 "name" Text;
    2 "generateName" Text;
    3 "namespace" Text;
    4 "selfLink" Skipped;
    5 "uid" Text;
    6 "resourceVersion" Text;
    7 "generation" Skipped;
    8 "creationTimestamp" Skipped;
    9 "deletionTimestamp" Skipped;
    10 "deletionGracePeriodSeconds" Skipped;
    11 "labels" TextMap;
    12 "annotations" TextMap;
    13 "ownerReferences" Messages(OWNER);
    14 "finalizers" Texts;
    17 "managedFields" Skipped;
};

const OWNER: &[Field] = fields! {
    1 "kind" Text;
    3 "name" Text;
    4 "uid" Text;
    5 "apiVersion" Text;
    6 "controller" MaybeFlag;
    7 "blockOwnerDeletion" MaybeFlag;
};

const NAMESPACE: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(fields! { 1 "finalizers" Texts; });
    3 "status" Skipped;
};

const CONFIG_MAP: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "data" TextMap;
    3 "binaryData" BytesMap;
    4 "immutable" MaybeFlag;
};

const SECRET: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "data" BytesMap;
    3 "type" Text;
    4 "stringData" TextMap;
    5 "immutable" MaybeFlag;
};

const OBJECT_REFERENCE: &[Field] = fields! {
    1 "kind" Text;
    2 "namespace" Text;
    3 "name" Text;
    4 "uid" Text;
    5 "apiVersion" Text;
    6 "resourceVersion" Text;
    7 "fieldPath" Text;
};

const SERVICE_ACCOUNT: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "secrets" Messages(OBJECT_REFERENCE);
    3 "imagePullSecrets" Messages(fields! { 1 "name" Text; });
    4 "automountServiceAccountToken" MaybeFlag;
};

const SERVICE: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(SERVICE_SPEC);
    3 "status" Skipped;
};

const SERVICE_SPEC: &[Field] = fields! {
    1 "ports" Messages(SERVICE_PORT);
    2 "selector" TextMap;
    3 "clusterIP" Text;
    4 "type" Text;
    5 "externalIPs" Texts;
    7 "sessionAffinity" Text;
    8 "loadBalancerIP" Text;
    9 "loadBalancerSourceRanges" Texts;
    10 "externalName" Text;
    11 "externalTrafficPolicy" Text;
    12 "healthCheckNodePort" Number;
    13 "publishNotReadyAddresses" Flag;
    17 "ipFamilyPolicy" MaybeText;
    18 "clusterIPs" Texts;
    19 "ipFamilies" Texts;
    20 "allocateLoadBalancerNodePorts" MaybeFlag;
    21 "loadBalancerClass" MaybeText;
    22 "internalTrafficPolicy" MaybeText;
};

const SERVICE_PORT: &[Field] = fields! {
    1 "name" Text;
    2 "protocol" Text;
    3 "port" Number;
    4 "targetPort" Port;
    5 "nodePort" Number;
    6 "appProtocol" MaybeText;
};

const DEPLOYMENT: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(DEPLOYMENT_SPEC);
    3 "status" Skipped;
};

const DEPLOYMENT_SPEC: &[Field] = fields! {
    1 "replicas" MaybeNumber;
    2 "selector" Message(fields! { 1 "matchLabels" TextMap; });
    3 "template" Message(fields! { 1 "metadata" Message(OBJECT_META); 2 "spec" Message(POD_SPEC); });
    4 "strategy" Message(fields! { 1 "type" Text; });
    5 "minReadySeconds" Number;
    6 "revisionHistoryLimit" MaybeNumber;
    7 "paused" Flag;
    9 "progressDeadlineSeconds" MaybeNumber;
};

const POD_SPEC: &[Field] = fields! {
    2 "containers" Messages(CONTAINER);
    3 "restartPolicy" Text;
    4 "terminationGracePeriodSeconds" MaybeNumber;
    5 "activeDeadlineSeconds" MaybeNumber;
    6 "dnsPolicy" Text;
    7 "nodeSelector" TextMap;
    8 "serviceAccountName" Text;
    9 "serviceAccount" Text;
    10 "nodeName" Text;
    11 "hostNetwork" Flag;
    12 "hostPID" Flag;
    13 "hostIPC" Flag;
    16 "hostname" Text;
    17 "subdomain" Text;
    19 "schedulerName" Text;
    20 "initContainers" Messages(CONTAINER);
    21 "automountServiceAccountToken" MaybeFlag;
    24 "priorityClassName" Text;
};

const CONTAINER: &[Field] = fields! {
    1 "name" Text;
    2 "image" Text;
    3 "command" Texts;
    4 "args" Texts;
    5 "workingDir" Text;
    6 "ports" Messages(fields! { 1 "name" Text; 2 "hostPort" Number; 3 "containerPort" Number; 4 "protocol" Text; 5 "hostIP" Text; });
    7 "env" Messages(fields! { 1 "name" Text; 2 "value" Text; });
    8 "resources" Message(&[]);
    13 "terminationMessagePath" Text;
    14 "imagePullPolicy" Text;
    16 "stdin" Flag;
    17 "stdinOnce" Flag;
    18 "tty" Flag;
    20 "terminationMessagePolicy" Text;
};

const ROLE: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "rules" Messages(fields! { 1 "verbs" Texts; 2 "apiGroups" Texts; 3 "resources" Texts; 4 "resourceNames" Texts; 5 "nonResourceURLs" Texts; });
};

const ROLE_BINDING: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "subjects" Messages(fields! { 1 "kind" Text; 2 "apiGroup" Text; 3 "name" Text; 4 "namespace" Text; });
    3 "roleRef" Message(fields! { 1 "apiGroup" Text; 2 "kind" Text; 3 "name" Text; });
};

const TOKEN_REQUEST: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(fields! {
        1 "audiences" Texts;
        3 "boundObjectRef" Message(fields! { 1 "kind" Text; 2 "apiVersion" Text; 3 "name" Text; 4 "uid" Text; });
        4 "expirationSeconds" MaybeNumber;
    });
    3 "status" Skipped;
};

const SELF_SUBJECT_REVIEW: &[Field] = fields! { 1 "metadata" Message(OBJECT_META); 2 "status" Skipped; };

const ACCESS_REVIEW: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(fields! {
        1 "resourceAttributes" Message(fields! {
            1 "namespace" Text; 2 "verb" Text; 3 "group" Text; 4 "version" Text; 5 "resource" Text; 6 "subresource" Text; 7 "name" Text;
        });
        2 "nonResourceAttributes" Message(fields! { 1 "path" Text; 2 "verb" Text; });
    });
    3 "status" Skipped;
};

const RULES_REVIEW: &[Field] = fields! {
    1 "metadata" Message(OBJECT_META);
    2 "spec" Message(fields! { 1 "namespace" Text; });
    3 "status" Skipped;
};
