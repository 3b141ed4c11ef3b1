{{/* Where the test's job goes: only a namespace that is watched makes sense. */}}
{{- define "distriqueue.testNamespace" -}}
{{- $watched := .Values.watchNamespaces -}}
{{- if .Values.tests.namespace -}}
{{- .Values.tests.namespace -}}
{{- else if or (not $watched) (has .Release.Namespace $watched) -}}
{{- .Release.Namespace -}}
{{- else -}}
{{- first $watched -}}
{{- end -}}
{{- end -}}
