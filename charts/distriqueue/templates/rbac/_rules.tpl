{{- define "distriqueue.jobRules" -}}
- apiGroups: [distriqueue.io]
  resources: [distributedjobs]
  # delete: when the time to live of a finished job is over
  verbs: [get, list, watch, delete]
- apiGroups: [distriqueue.io]
  resources: [distributedjobs/status]
  verbs: [update]
{{ include "distriqueue.eventRules" . }}
{{- end -}}
{{- define "distriqueue.eventRules" -}}
# patch: the same again raises the count of the Event that says so
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
