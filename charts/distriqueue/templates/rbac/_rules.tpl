{{- define "distriqueue.jobRules" -}}
- apiGroups: [distriqueue.io]
  resources: [distributedjobs]
  # delete: when the time to live of a finished job is over
  verbs: [get, list, watch, delete]
- apiGroups: [distriqueue.io]
  resources: [distributedjobs/status]
  verbs: [update]
# The payload of a job may stand in a ConfigMap. There is no list: the job names it.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{ include "distriqueue.eventRules" . }}
{{- end -}}
{{- define "distriqueue.gatewayRules" -}}
# For callers who may do the same: the gateway asks first, each time.
- apiGroups: [distriqueue.io]
  resources: [distributedjobs]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}
{{- define "distriqueue.eventRules" -}}
# patch: the same again raises the count of the Event that says so
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
{{/* What a component may do with jobs: in each of the namespaces that are watched, or in all. "rules" is what defines them. */}}
{{- define "distriqueue.jobRoles" -}}
{{- $it := dict "root" .root "component" .component -}}
{{- $name := printf "%s-%s" (include "distriqueue.clusterName" .root) .suffix -}}
{{- $rules := include .rules .root -}}
{{- $subject := dict "kind" "ServiceAccount" "name" (include "distriqueue.serviceAccountName" $it) "namespace" .root.Release.Namespace -}}
{{- $places := list (dict "cluster" true "kind" "ClusterRole") -}}
{{- if .root.Values.watchNamespaces -}}
{{- $places = list -}}
{{- range .root.Values.watchNamespaces | uniq }}{{ $places = append $places (dict "namespace" . "kind" "Role") }}{{ end -}}
{{- end -}}
{{- range $place := $places }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $place.kind }}
metadata:
  {{- include "distriqueue.metadata" (merge (dict "name" $name) $place $it) | nindent 2 }}
rules:
  {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $place.kind }}Binding
metadata:
  {{- include "distriqueue.metadata" (merge (dict "name" $name) $place $it) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $place.kind }}
  name: {{ $name }}
subjects:
  - {{- toYaml $subject | nindent 4 }}
{{- end }}
{{- end -}}
