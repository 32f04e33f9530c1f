{{- define "watershed.labels" -}}
app.kubernetes.io/name: watershed
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "watershed.selector" -}}
app.kubernetes.io/name: watershed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Cluster-wide objects carry the namespace, so that two releases do not share them. */}}
{{- define "watershed.clusterName" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}

{{/* The configuration file as text. */}}
{{- define "watershed.config" -}}
{{ .Values.config | default (.Files.Get "watershed.yaml") }}
{{- end }}

{{/* Ports follow from the file: what stands after the last colon of an address. */}}
{{- define "watershed.port" -}}
{{- $config := include "watershed.config" . | fromYaml -}}
{{- $listen := required "the configuration file names no listen.address" (($config).listen).address -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end }}

{{- define "watershed.adminPort" -}}
{{- $config := include "watershed.config" . | fromYaml -}}
{{- $admin := (($config).admin).address | default "127.0.0.1:9443" -}}
{{- if hasPrefix "127." $admin -}}
{{- fail "admin.address is a loopback address, which probes cannot reach; write \"[::]:9443\"" -}}
{{- end -}}
{{- regexFind "[0-9]+$" $admin -}}
{{- end }}

{{- define "watershed.impersonates" -}}
{{- $config := include "watershed.config" . | fromYaml -}}
{{- if eq (((($config).upstream).identity).mode | default "") "Impersonate" -}}true{{- end -}}
{{- end }}

{{/* Empty unless replicas tell each other of heartbeats that are not written yet. */}}
{{- define "watershed.peersPort" -}}
{{- $config := include "watershed.config" . | fromYaml -}}
{{- with (($config).heartbeats).peers -}}
{{- regexFind "[0-9]+$" (.listen | default "0.0.0.0:6444") -}}
{{- end -}}
{{- end }}
