{{/* What the pods of all components have in common. Each helper takes (dict "root" $ "component" "operator"). */}}

{{/* Pod metadata; "annotations" are those that the component itself needs. */}}
{{- define "distriqueue.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "distriqueue.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: distriqueue
  {{- with merge (dict) $values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with merge (dict) $values.podAnnotations (.annotations | default dict) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Everything of a pod spec that is neither a container nor a volume. */}}
{{- define "distriqueue.podSettings" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "distriqueue.serviceAccountName" . }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- $image := index .root.Values (include "distriqueue.imageComponent" .) -}}
{{- with concat .root.Values.imagePullSecrets $image.imagePullSecrets $values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.affinity }}
affinity:
  {{- toYaml $values.affinity | nindent 2 }}
{{- else if ne .component "rabbitmq" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "distriqueue.selectorLabels" . | nindent 14 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $constraint := . }}
  {{- if not (hasKey . "labelSelector") }}
  {{- $constraint = merge (dict "labelSelector" (dict "matchLabels" (include "distriqueue.selectorLabels" $ | fromYaml))) . }}
  {{- end }}
  - {{- toYaml $constraint | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Image, resources and security of a container. */}}
{{- define "distriqueue.containerSettings" -}}
{{- $values := index .root.Values .component -}}
name: {{ .component }}
image: {{ include "distriqueue.image" . }}
imagePullPolicy: {{ (index .root.Values (include "distriqueue.imageComponent" .)).image.pullPolicy }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The three probes of a process that serves /healthz and /readyz on its port `http`. */}}
{{- define "distriqueue.httpProbes" -}}
{{- $values := index .root.Values .component -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  {{- toYaml $values.startupProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: http}
  {{- toYaml $values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  {{- toYaml $values.readinessProbe | nindent 2 }}
{{- end -}}

{{/* Environment that operator, gateway and worker share. "urlKey" is the key of the broker's URL. */}}
{{- define "distriqueue.commonEnv" -}}
- name: DISTRIQUEUE_AMQP_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "distriqueue.brokerSecretName" .root }}
      key: {{ .urlKey }}
{{- if include "distriqueue.brokerCaSecret" .root }}
- name: DISTRIQUEUE_AMQP_CA_FILE
  value: /etc/distriqueue/broker/ca.crt
{{- end }}
- name: DISTRIQUEUE_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: DISTRIQUEUE_POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: DISTRIQUEUE_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: DISTRIQUEUE_LOG_LEVEL
  value: {{ include "distriqueue.logLevel" . }}
- name: DISTRIQUEUE_LOG_FORMAT
  value: {{ .root.Values.logFormat }}
- name: DISTRIQUEUE_HTTP_PORT
  value: "8080"
{{- end -}}

{{/* Where these programs find the authorities of the broker, and may write. "tmp" is how much. */}}
{{- define "distriqueue.commonMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "distriqueue.brokerCaSecret" .root }}
- name: broker-ca
  mountPath: /etc/distriqueue/broker
  readOnly: true
{{- end }}
{{- end -}}

{{- define "distriqueue.commonVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmp }}
{{- with include "distriqueue.brokerCaSecret" .root }}
- name: broker-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    # The key of the certificate may lie in the same Secret, and is none of theirs.
    items:
      - key: {{ include "distriqueue.brokerCaKey" $.root }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget for one component, when it wants one. */}}
{{- define "distriqueue.podDisruptionBudget" -}}
{{- $budget := (index .root.Values .component).podDisruptionBudget -}}
{{- if $budget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "distriqueue.metadata" (merge (dict "name" (include "distriqueue.componentName" .)) .) | nindent 2 }}
spec:
  {{- if kindIs "invalid" $budget.minAvailable }}
  maxUnavailable: {{ $budget.maxUnavailable }}
  {{- else }}
  minAvailable: {{ $budget.minAvailable }}
  {{- end }}
  # A pod that is not ready protects nobody: it may always go.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "distriqueue.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* A ServiceAccount for one component, when it is to be created. */}}
{{- define "distriqueue.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "distriqueue.metadata" (merge (dict "name" (include "distriqueue.serviceAccountName" .) "annotations" $account.annotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}
