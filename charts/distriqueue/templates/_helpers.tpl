{{/* Names and labels. Every helper that speaks of one component takes (dict "root" $ "component" "operator"). */}}

{{- define "distriqueue.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The prefix of all names: 40 characters at most, so that what is put behind it stays within Kubernetes' 63. */}}
{{- define "distriqueue.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Prefix of objects without a namespace: releases of the same name in two namespaces must not meet. */}}
{{- define "distriqueue.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "distriqueue.fullname" .) -}}
{{- end -}}

{{- define "distriqueue.componentName" -}}
{{- printf "%s-%s" (include "distriqueue.fullname" .root) .component -}}
{{- end -}}

{{- define "distriqueue.leaseName" -}}
{{- printf "%s-shard-0" (include "distriqueue.fullname" .) -}}
{{- end -}}

{{- define "distriqueue.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: distriqueue
{{ include "distriqueue.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "distriqueue.selectorLabels" -}}
app.kubernetes.io/name: {{ include "distriqueue.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* `metadata` of an object: name, namespace (unless "cluster" is true), labels and annotations (own ones in "annotations"). */}}
{{- define "distriqueue.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "distriqueue.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "distriqueue.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (include "distriqueue.componentName" .) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The component whose image runs: the gateway is a program of the operator's. */}}
{{- define "distriqueue.imageComponent" -}}
{{- ternary "operator" .component (eq .component "gateway") -}}
{{- end -}}

{{- define "distriqueue.image" -}}
{{- $image := (index .root.Values (include "distriqueue.imageComponent" .)).image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "distriqueue.logLevel" -}}
{{- (index .root.Values .component).logLevel | default .root.Values.logLevel -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity such as 1Gi, 512M or 1073741824. */}}
{{- define "distriqueue.bytes" -}}
{{- $quantity := toString . -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $quantity -}}
{{- $unit := trimPrefix $number $quantity -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (and $number (hasKey $units $unit)) -}}
{{- fail (printf "rabbitmq.resources.limits.memory: %q is not understood: write it like 1Gi or 1500Mi" $quantity) -}}
{{- end -}}
{{- mulf (float64 $number) (index $units $unit) | int64 -}}
{{- end -}}
