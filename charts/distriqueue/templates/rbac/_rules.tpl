{{- define "distriqueue.jobRules" -}}
- apiGroups: [distriqueue.io]
  resources: [distributedjobs]
  verbs: [get, list, watch]
- apiGroups: [distriqueue.io]
  resources: [distributedjobs/status]
  verbs: [get, update, patch]
# Events stand beside the job that they speak of.
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
