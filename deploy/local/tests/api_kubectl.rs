//! The API server as kubectl uses it. Skipped where there is no kubectl.

mod api_support;

use api_support::with_kubectl;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: example.com/web:1, ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, maximum: 10}
              color: {type: string, default: red}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_reads_changes_and_deletes() {
    with_kubectl(|kubectl| {
        assert_eq!(kubectl.ok("apply -f -", DEPLOYMENT), "deployment.apps/web created\nservice/web created\n");
        assert_eq!(kubectl.ok("apply -f -", DEPLOYMENT), "deployment.apps/web unchanged\nservice/web unchanged\n");
        let changed = DEPLOYMENT.replace("web:1", "web:2");
        assert_eq!(kubectl.ok("apply -f -", &changed), "deployment.apps/web configured\nservice/web unchanged\n");
        let image = "get deploy web -o jsonpath={.spec.template.spec.containers[*].image}";
        assert_eq!(kubectl.ok(image, ""), "example.com/web:2");

        let table = kubectl.ok("get deployments,svc", "");
        assert!(table.contains("READY") && table.contains("0/1") && table.contains("CLUSTER-IP"), "{table}");
        assert!(kubectl.ok("get all -A", "").contains("service/kubernetes"));
        kubectl.ok("scale deployment web --replicas=3", "");
        assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}", ""), "3");
        kubectl.ok("label deployment web tier=front", "");
        kubectl.ok("annotate deployment web note=x", "");
        assert!(kubectl.ok("get deploy -l tier=front -o name", "").contains("deployment.apps/web"));
        kubectl.ok("set image deployment/web web=example.com/web:3", "");
        kubectl.ok("rollout restart deployment/web", "");
        assert!(kubectl.ok("describe deployment web", "").contains("example.com/web:3"));
        assert_eq!(kubectl.ok("diff -f -", &kubectl.ok("get deployment web -o yaml", "")), "");
        kubectl.ok(
            "patch deployment web --type=json -p=[{\"op\":\"remove\",\"path\":\"/metadata/annotations/note\"}]",
            "",
        );
        kubectl.ok("expose deployment web --name=other --port=81", "");
        assert_eq!(kubectl.ok("get svc other -o jsonpath={.spec.selector.app}", ""), "web");
        kubectl.ok("wait --for=jsonpath={.spec.replicas}=3 deployment/web --timeout=10s", "");
        assert!(kubectl.ok("get deploy web -o yaml --show-managed-fields", "").contains("kubectl-client-side-apply"));

        let typo = DEPLOYMENT.replace("replicas:", "replcas:");
        let refused = kubectl.run("apply -f -", &typo);
        assert!(!refused.ok && refused.err.contains("unknown field \"spec.replcas\""), "{}", refused.err);

        assert_eq!(kubectl.ok("delete deployment web", ""), "deployment.apps \"web\" deleted\n");
        let gone = kubectl.run("get deployment web", "");
        assert!(gone.err.contains("(NotFound): deployments.apps \"web\" not found"), "{}", gone.err);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_on_the_server_side() {
    with_kubectl(|kubectl| {
        let applied = kubectl.ok("apply --server-side -f -", DEPLOYMENT);
        assert_eq!(applied, "deployment.apps/web serverside-applied\nservice/web serverside-applied\n");
        let other = DEPLOYMENT.replace("web:1", "web:2");
        let conflict = kubectl.run("apply --server-side --field-manager=other -f -", &other);
        assert!(!conflict.ok && conflict.err.contains("conflict with \"kubectl\""), "{}", conflict.err);
        kubectl.ok("apply --server-side --field-manager=other --force-conflicts -f -", &other);
        // From client-side to server-side.
        kubectl.ok("apply -f -", "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a: '1'}}");
        kubectl.ok(
            "apply --server-side -f -",
            "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a: '2'}}",
        );
        assert_eq!(kubectl.ok("get cm m -o jsonpath={.data.a}", ""), "2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_knows_custom_resources_as_soon_as_they_are_defined() {
    with_kubectl(|kubectl| {
        kubectl.ok("get pods", "");
        kubectl.ok("apply -f -", WIDGETS);
        kubectl.ok("wait --for=condition=Established crd/widgets.example.com --timeout=10s", "");
        let widget = "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {size: 3}}";
        assert_eq!(kubectl.ok("apply -f -", widget), "widget.example.com/w created\n");
        assert_eq!(kubectl.ok("apply -f -", &widget.replace('3', "4")), "widget.example.com/w configured\n");
        let table = kubectl.ok("get wd", "");
        assert!(table.contains("SIZE") && table.contains("4"), "{table}");
        assert_eq!(kubectl.ok("get widget w -o jsonpath={.spec.color}", ""), "red");
        let explained = kubectl.ok("explain widget.spec.size", "");
        assert!(explained.contains("KIND:       Widget") && explained.contains("size <integer>"), "{explained}");
        assert!(kubectl.ok("explain widget.metadata", "").contains("ownerReferences"));
        let refused = kubectl.run("apply -f -", &widget.replace('3', "99"));
        assert!(refused.err.contains("should be less than or equal to 10"), "{}", refused.err);
        kubectl.ok("delete crd widgets.example.com", "");
        assert!(!kubectl.run("get widgets", "").ok);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_waits_for_namespaces_and_sees_who_it_is() {
    with_kubectl(|kubectl| {
        kubectl.ok("apply -f -", "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
        kubectl.ok("-n shop apply -f -", DEPLOYMENT);
        assert!(kubectl.ok("get ns", "").contains("Active"));
        // Returns when the namespace is gone.
        kubectl.ok("delete namespace shop --timeout=20s", "");
        assert!(!kubectl.run("get ns shop", "").ok);
        assert!(kubectl.ok("version", "").contains("Server Version: v1.36.2"));
        assert!(kubectl.ok("api-resources", "").contains("endpointslices"));
        assert!(kubectl.ok("get --raw /healthz", "") == "ok");

        // These are sent as protobuf.
        assert_eq!(kubectl.ok("create namespace made", ""), "namespace/made created\n");
        kubectl.ok("create deployment web --image=example.com/web:1 --replicas=2 --port=80 -n made", "");
        assert_eq!(kubectl.ok("get deploy web -n made -o jsonpath={.spec.replicas}", ""), "2");
        kubectl.ok("create configmap made --from-literal=a=b", "");
        assert_eq!(kubectl.ok("get cm made -o jsonpath={.data.a}", ""), "b");
        kubectl.ok("create secret generic made --from-literal=a=b", "");
        assert_eq!(kubectl.ok("get secret made -o jsonpath={.data.a}", ""), "Yg==");
        kubectl.ok("create service clusterip made --tcp=80:8080", "");
        assert_eq!(kubectl.ok("get svc made -o jsonpath={.spec.ports[0].targetPort}", ""), "8080");
        kubectl.ok("create serviceaccount made", "");
        assert_eq!(kubectl.ok("create token made", "").split('.').count(), 3);
        assert_eq!(kubectl.ok("auth can-i create pods", ""), "yes\n");
        assert!(kubectl.ok("auth whoami", "").contains("kubernetes-admin"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_definitions_of_the_mesh_are_served_and_checked() {
    with_kubectl(|kubectl| {
        let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
        kubectl.ok(&format!("apply -f {definitions}"), "");
        kubectl.ok("wait --for=condition=Established crd --all --timeout=10s", "");
        assert!(kubectl.ok(&format!("apply -f {definitions}"), "").lines().all(|line| line.ends_with(" unchanged")));
        let split = "---\n{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: s}, spec: {service: web, backends: [{service: web-1, weight: 1}]}}";
        assert_eq!(kubectl.ok("apply -f -", split), "trafficsplit.split.smi-spec.io/s created\n");
        let refused = kubectl.run("apply -f -", &split.replace("weight: 1", "weight: x"));
        assert!(refused.err.contains("spec.backends[0].weight"), "{}", refused.err);
        let typo = kubectl.run("apply -f -", &split.replace("service: web,", "servce: web,"));
        assert!(typo.err.contains("servce"), "{}", typo.err);
        assert!(kubectl.ok("get trafficsplits -A", "").contains("s"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_explains_built_in_kinds_and_refuses_unknown_fields() {
    with_kubectl(|kubectl| {
        let replicas = kubectl.ok("explain deployment.spec.replicas", "");
        assert!(replicas.contains("replicas <integer>") && replicas.contains("Number of desired pods"), "{replicas}");
        let containers = kubectl.ok("explain pod.spec.containers", "");
        assert!(containers.contains("<[]Container>") && containers.contains("livenessProbe\t<Probe>"), "{containers}");
        let slice = kubectl.ok("explain endpointslice.endpoints.conditions --recursive", "");
        assert!(slice.contains("serving\t<boolean>"), "{slice}");
        for kind in ["service.spec.ports.targetPort", "ingress.spec.rules", "crd.spec.versions.schema", "lease.spec"] {
            assert!(kubectl.ok(&format!("explain {kind}"), "").contains("DESCRIPTION"), "{kind}");
        }
        let typo = DEPLOYMENT.replace("containerPort:", "contanerPort:");
        for way in ["strict", "true"] {
            let refused = kubectl.run(&format!("apply --validate={way} -f -"), &typo);
            let field = "unknown field \"spec.template.spec.containers[0].ports[0].contanerPort\"";
            assert!(!refused.ok && refused.err.contains(field), "{}", refused.err);
        }
        let warned =
            kubectl.run("apply --validate=warn --dry-run=server -f -", &DEPLOYMENT.replace("selector:", "selektor:"));
        assert!(warned.err.contains("unknown field \"spec.selektor\""), "{}", warned.err);
        assert!(!kubectl.run("explain deployment.spec.replcas", "").ok);
    })
    .await;
}
