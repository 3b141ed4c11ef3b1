{{- define "distriqueue.jobRules" -}}
- apiGroups: [distriqueue.io]
  resources: [distributedjobs]
  verbs: [get, list, watch]
- apiGroups: [distriqueue.io]
  resources: [distributedjobs/status]
  verbs: [update]
{{- end -}}
