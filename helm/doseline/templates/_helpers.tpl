{{/* Names, labels, the shape every pod has, and TOML. Templates call these with `dict "top" $ "role" "gateway" …`. */}}

{{/* Every template asks for the name first, so whatever is wrong is told before anything is made of it. */}}
{{- define "doseline.name" -}}
{{- include "doseline.check" . -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- /* Pods of a StatefulSet are named NAME-inventory-GROUP-N, and their labels may have 63 letters. */ -}}
{{- if gt (len $name) 24 -}}{{ fail (printf "the name %s has more than 24 letters: give a shorter one as fullnameOverride" $name) }}{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "doseline.selector" -}}
app.kubernetes.io/name: doseline
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- with .group }}
doseline/group: {{ . }}
{{- end }}
{{- end -}}

{{- define "doseline.labels" -}}
{{ include "doseline.selector" . }}
app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "doseline.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The address every port is bound to, and a pod's own address as others write it. */}}
{{- define "doseline.listen" -}}
{{- if .top.Values.ipv6 -}}[::]:{{ .port }}{{- else -}}0.0.0.0:{{ .port }}{{- end -}}
{{- end -}}
{{- define "doseline.advertise" -}}
{{- if .top.Values.ipv6 -}}[$(POD_IP)]:{{ .port }}{{- else -}}$(POD_IP):{{ .port }}{{- end -}}
{{- end -}}

{{/* What the schema cannot say, because it is about two values at once. */}}
{{- define "doseline.check" -}}
{{- $groups := dict -}}
{{- range .Values.inventory.groups -}}
{{- if hasKey $groups .name -}}{{ fail (printf "inventory.groups: %s is named twice" .name) }}{{- end -}}
{{- $_ := set $groups .name 0 -}}
{{- end -}}
{{- $names := dict -}}
{{- range .Values.regions -}}
{{- if hasKey $names .name -}}{{ fail (printf "regions: %s is named twice" .name) }}{{- end -}}
{{- $_ := set $names .name true -}}
{{- if not (hasKey $groups .group) -}}
{{- fail (printf "regions: %s is served by the group %q, which is not in inventory.groups: nobody would own its shards" .name .group) -}}
{{- end -}}
{{- $_ := set $groups .group (add1 (get $groups .group)) -}}
{{- end -}}
{{- range $group, $count := $groups -}}
{{- if not $count -}}{{ fail (printf "inventory.groups: %s serves no region" $group) }}{{- end -}}
{{- end -}}
{{- with .Values.gateway.autoscaling -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}{{ fail "gateway.autoscaling: minReplicas is above maxReplicas" }}{{- end -}}
{{- end -}}
{{- if and .Values.test.region (not (hasKey $names .Values.test.region)) -}}{{ fail (printf "test.region: %s is none of the regions" .Values.test.region) }}{{- end -}}
{{- if not .Values.dev -}}
{{- $needed := dict "people.caSecret" .Values.people.caSecret -}}
{{- range $role, $secret := .Values.etcd.tlsSecrets -}}{{- $_ := set $needed (printf "etcd.tlsSecrets.%s" $role) $secret -}}{{- end -}}
{{- range tuple "publicSecret" "gatewaySecret" "inventorySecret" "identitySecret" -}}{{- $_ := set $needed (printf "tls.%s" .) (get $.Values.tls .) -}}{{- end -}}
{{- range $key, $secret := $needed -}}
{{- if not $secret -}}{{ fail (printf "%s: is empty, and without it there is no TLS; only with dev: true" $key) }}{{- end -}}
{{- end -}}
{{- range .Values.providers.list -}}
{{- if .development -}}{{ fail (printf "providers.list: %s vouches for anybody; only with dev: true" .issuer) }}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every role's file says alike: `process` and `etcd`. */}}
{{- define "doseline.shared" -}}
{{- $v := .top.Values -}}
{{- $drain := (get $v .role).drain -}}
process:
  drain_notice: {{ printf "%ds" (int $drain.noticeSeconds) }}
  drain_deadline: {{ printf "%ds" (int $drain.deadlineSeconds) }}
  admin:
    listen: {{ include "doseline.listen" (dict "top" .top "port" 7780) | quote }}
  telemetry:
    format: {{ $v.telemetry.format }}
    filter: {{ $v.telemetry.filter | quote }}
    otlp_endpoint: {{ $v.telemetry.otlpEndpoint | quote }}
    sample_ratio: {{ $v.telemetry.sampleRatio }}
etcd:
  endpoints: {{ $v.etcd.endpoints | toJson }}
{{- if get $v.etcd.tlsSecrets .role }}
  {{- include "doseline.clientTls" "etcd" | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The settings of a folder with ca.crt, tls.crt and tls.key: for one who calls, and for one who is called. */}}
{{- define "doseline.clientTls" -}}
ca: /etc/doseline/{{ . }}/ca.crt
certificate: /etc/doseline/{{ . }}/tls.crt
key: /etc/doseline/{{ . }}/tls.key
{{- end -}}
{{- define "doseline.serverTls" -}}
client_ca: /etc/doseline/{{ .folder }}/ca.crt
certificate: /etc/doseline/{{ .folder }}/tls.crt
key: /etc/doseline/{{ .folder }}/tls.key
client_certificates: {{ .clients }}
{{- end -}}

{{/* The program's own TOML: .config with .settings laid over it. */}}
{{- define "doseline.file" -}}
{{- include "doseline.toml" (dict "path" "" "table" (mergeOverwrite (deepCopy .config) (deepCopy .settings))) | trim -}}
{{- end -}}

{{- define "doseline.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- $tables := and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}
{{- if not (or (kindIs "map" $value) $tables) }}
{{ $key }} = {{ include "doseline.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- $below := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}
{{- if kindIs "map" $value }}

[{{ $below }}]
{{- include "doseline.toml" (dict "path" $below "table" $value) }}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}
{{- range $value }}

[[{{ $below }}]]
{{- include "doseline.toml" (dict "path" $below "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Values files know only floating numbers; whole ones are written whole. */}}
{{- define "doseline.tomlValue" -}}
{{- if kindIs "string" . -}}{{ toJson . }}
{{- else if kindIs "slice" . -}}[{{ range $at, $one := . }}{{ if $at }}, {{ end }}{{ include "doseline.tomlValue" $one }}{{ end }}]
{{- else if kindIs "bool" . -}}{{ . }}
{{- else if kindIs "invalid" . -}}{{ fail "settings: a setting has no value" }}
{{- else if eq (float64 (int64 .)) (float64 .) -}}{{ int64 . }}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}

{{/*
The pod of a role. Arguments: top, role, group (inventory), config (its ConfigMap's name), file (that file's text),
resources, nodeSelector, tolerations, ports (name: number), env (list), volumes (name: what a volume is made of).
*/}}
{{- define "doseline.pod" -}}
{{- $v := .top.Values -}}
{{- $role := get $v .role -}}
{{- $drain := $role.drain -}}
metadata:
  labels:
    {{- include "doseline.labels" . | nindent 4 }}
  annotations:
    # Another configuration is another pod.
    doseline/config: {{ sha256sum .file }}
    {{- with $role.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "doseline.name" .top }}-{{ .role }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Before the stop signal, the drain's two parts, and what the program takes after them: up to 6 s to cut, flush and leave.
  terminationGracePeriodSeconds: {{ add (int $drain.preStopSeconds) (int $drain.noticeSeconds) (int $drain.deadlineSeconds) 10 }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "doseline.podSecurity" . | nindent 4 }}
  {{- with $v.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - maxSkew: 1
      topologyKey: {{ .topologyKey }}
      whenUnsatisfiable: {{ .whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "doseline.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ include "doseline.image" .top }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - {{ .role }}
        - --config=/etc/doseline/config/{{ .role }}.toml
        {{- if $v.dev }}
        - --dev
        {{- end }}
      {{- with .env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $name, $number := .ports }}
        - name: {{ $name }}
          containerPort: {{ $number }}
        {{- end }}
        - name: watching
          containerPort: 7780
      {{- include "doseline.probes" . | nindent 6 }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        {{- include "doseline.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/doseline/config
          readOnly: true
        {{- range $name, $_ := .volumes }}
        - name: {{ $name }}
          mountPath: /etc/doseline/{{ $name }}
          readOnly: true
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ .config }}
    {{- range $name, $source := .volumes }}
    - name: {{ $name }}
      {{- toYaml $source | nindent 6 }}
    {{- end }}
{{- end -}}

{{- define "doseline.probes" -}}
{{- $drain := (get .top.Values .role).drain -}}
# The program answers these on a port without TLS that only the node and monitoring reach; kubelet's own gRPC probe
# cannot present a certificate. `healthz` says that the process answers, `readyz` that work may come.
startupProbe:
  httpGet: { path: /healthz, port: watching }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /healthz, port: watching }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: watching }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- if gt (int $drain.preStopSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int $drain.preStopSeconds }}
{{- end }}
{{- end -}}

{{- define "doseline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "doseline.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A volume made of one Secret, readable by the program's group alone. */}}
{{- define "doseline.secret" -}}
secret:
  secretName: {{ . }}
  defaultMode: 0440
{{- end -}}
