"""Shapes of objects that Kubernetes itself has no schema of, as far as this chart and its examples use them.

Invariant: nothing passes that is not named here. The words follow the operators' published definitions; a field that
a template newly uses is looked up there first.
"""

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
BOOLEAN = {"type": "boolean"}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
COUNT = {"type": "integer", "minimum": 1}


def shape(required, **properties):
    """An object that has these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def many(item, least=1):
    """A list."""
    return {"type": "array", "items": item, "minItems": least}


METADATA = shape(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
SELECTOR = shape([], matchLabels=TEXTS, matchExpressions=many(
    shape(["key", "operator"], key=TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, values=many(TEXT))))
SECRET_KEY = shape(["name", "key"], name=TEXT, key=TEXT)
SECRET = shape(["name"], name=TEXT)


def resource(api, kind, spec):
    """One kind of object."""
    return shape(["apiVersion", "kind", "metadata", "spec"],
                 apiVersion={"const": api}, kind={"const": kind}, metadata=METADATA, spec=spec)


RULE = {"oneOf": [
    shape(["record", "expr"], record={"type": "string", "pattern": "^[a-z_]+(:[a-z0-9_]+){2}$"}, expr=TEXT, labels=TEXTS),
    shape(["alert", "expr", "labels", "annotations"], alert={"type": "string", "pattern": "^Doseline[A-Z][A-Za-z]+$"},
          expr=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": DURATION}),
]}

SCHEMAS = {
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", shape(
        ["selector", "podMetricsEndpoints"], selector=SELECTOR, podMetricsEndpoints=many(shape(
            ["port"], port=TEXT, path=TEXT, interval=DURATION, relabelings=many(
                shape(["sourceLabels", "targetLabel"], sourceLabels=many(TEXT), targetLabel=TEXT)))))),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", shape(
        ["groups"], groups=many(shape(["name", "rules"], name=TEXT, interval=DURATION, rules=many(RULE))))),
    "Cluster": resource("postgresql.cnpg.io/v1", "Cluster", shape(
        ["instances", "storage", "bootstrap"], instances={"type": "integer", "minimum": 3},
        postgresql=shape(
            [], parameters=TEXTS, pg_hba=many(TEXT),
            synchronous=shape(["method", "number"], method={"enum": ["any", "first"]}, number=COUNT,
                              dataDurability={"enum": ["required", "preferred"]})),
        bootstrap=shape(["initdb"], initdb=shape(["database", "owner"], database=TEXT, owner=TEXT)),
        storage=shape(["size"], size=TEXT, storageClass=TEXT), walStorage=shape(["size"], size=TEXT, storageClass=TEXT),
        affinity=shape([], enablePodAntiAffinity=BOOLEAN, topologyKey=TEXT,
                       podAntiAffinityType={"enum": ["required", "preferred"]}),
        resources=shape([], requests=TEXTS, limits=TEXTS), primaryUpdateStrategy={"enum": ["supervised", "unsupervised"]},
        monitoring=shape([], enablePodMonitor=BOOLEAN))),
    "Issuer": resource("cert-manager.io/v1", "Issuer", {"oneOf": [
        shape(["selfSigned"], selfSigned=shape([])), shape(["ca"], ca=shape(["secretName"], secretName=TEXT))]}),
    "Certificate": resource("cert-manager.io/v1", "Certificate", shape(
        ["secretName", "issuerRef", "duration", "renewBefore"], secretName=TEXT, commonName=TEXT, isCA=BOOLEAN,
        duration=DURATION, renewBefore=DURATION, dnsNames=many(TEXT), uris=many(TEXT),
        usages=many({"enum": ["client auth", "server auth", "digital signature", "key encipherment", "cert sign"]}),
        privateKey=shape(["algorithm"], algorithm={"enum": ["ECDSA", "RSA", "Ed25519"]}, size=COUNT,
                         rotationPolicy={"enum": ["Always", "Never"]}),
        issuerRef=shape(["name"], name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}))),
}
