package operator

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	clusterKind     = schema.GroupVersionKind{Group: "ray.io", Version: "v1", Kind: "RayCluster"}
	clusterResource = schema.GroupVersionResource{Group: "ray.io", Version: "v1", Resource: "rayclusters"}
)

// rayCluster is a RayCluster as the double reads and reports it.
type rayCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   clusterSpec   `json:"spec"`
	Status clusterStatus `json:"status"`
}

type clusterSpec struct {
	RayVersion               string             `json:"rayVersion,omitempty"`
	ManagedBy                *string            `json:"managedBy,omitempty"`
	Suspend                  *bool              `json:"suspend,omitempty"`
	EnableInTreeAutoscaling  *bool              `json:"enableInTreeAutoscaling,omitempty"`
	AutoscalerOptions        *autoscalerOptions `json:"autoscalerOptions,omitempty"`
	AuthOptions              *authOptions       `json:"authOptions,omitempty"`
	UpgradeStrategy          *upgradeStrategy   `json:"upgradeStrategy,omitempty"`
	GcsFaultToleranceOptions *gcsOptions        `json:"gcsFaultToleranceOptions,omitempty"`
	HeadServiceAnnotations   map[string]string  `json:"headServiceAnnotations,omitempty"`
	HeadGroupSpec            headGroup          `json:"headGroupSpec"`
	WorkerGroupSpecs         []workerGroup      `json:"workerGroupSpecs,omitempty"`

	// These three wait behind feature gates that are off by default: it is enough to know that they are asked for.
	NetworkPolicy        map[string]any `json:"networkPolicy,omitempty"`
	TLSOptions           map[string]any `json:"tlsOptions,omitempty"`
	HistoryServerOptions map[string]any `json:"historyServerOptions,omitempty"`
}

type headGroup struct {
	RayStartParams map[string]string      `json:"rayStartParams,omitempty"`
	Resources      map[string]string      `json:"resources,omitempty"`
	Labels         map[string]string      `json:"labels,omitempty"`
	Template       corev1.PodTemplateSpec `json:"template"`
	ServiceType    corev1.ServiceType     `json:"serviceType,omitempty"`
	HeadService    *corev1.Service        `json:"headService,omitempty"`
	EnableIngress  *bool                  `json:"enableIngress,omitempty"`
	IngressOptions *ingressOptions        `json:"ingressOptions,omitempty"`
}

type ingressOptions struct {
	Host     *string                   `json:"host,omitempty"`
	Path     *string                   `json:"path,omitempty"`
	PathType *networkingv1.PathType    `json:"pathType,omitempty"`
	TLS      []networkingv1.IngressTLS `json:"tls,omitempty"`
}

type workerGroup struct {
	GroupName          string                 `json:"groupName"`
	Replicas           *int32                 `json:"replicas,omitempty"`
	MinReplicas        *int32                 `json:"minReplicas,omitempty"`
	MaxReplicas        *int32                 `json:"maxReplicas,omitempty"`
	NumOfHosts         int32                  `json:"numOfHosts,omitempty"`
	IdleTimeoutSeconds *int32                 `json:"idleTimeoutSeconds,omitempty"`
	Priority           *int32                 `json:"priority,omitempty"`
	Suspend            *bool                  `json:"suspend,omitempty"`
	RayStartParams     map[string]string      `json:"rayStartParams,omitempty"`
	Resources          map[string]string      `json:"resources,omitempty"`
	Labels             map[string]string      `json:"labels,omitempty"`
	Template           corev1.PodTemplateSpec `json:"template"`
	ScaleStrategy      scaleStrategy          `json:"scaleStrategy,omitempty"`
}

type scaleStrategy struct {
	WorkersToDelete []string `json:"workersToDelete,omitempty"`
}

type autoscalerOptions struct {
	Version            *string                      `json:"version,omitempty"`
	IdleTimeoutSeconds *int32                       `json:"idleTimeoutSeconds,omitempty"`
	UpscalingMode      *string                      `json:"upscalingMode,omitempty"`
	Resources          *corev1.ResourceRequirements `json:"resources,omitempty"`
	Image              *string                      `json:"image,omitempty"`
	ImagePullPolicy    *corev1.PullPolicy           `json:"imagePullPolicy,omitempty"`
	SecurityContext    *corev1.SecurityContext      `json:"securityContext,omitempty"`
	Env                []corev1.EnvVar              `json:"env,omitempty"`
	EnvFrom            []corev1.EnvFromSource       `json:"envFrom,omitempty"`
	VolumeMounts       []corev1.VolumeMount         `json:"volumeMounts,omitempty"`
	Command            []string                     `json:"command,omitempty"`
	Args               []string                     `json:"args,omitempty"`
}

type authOptions struct {
	Mode               string  `json:"mode,omitempty"`
	SecretName         *string `json:"secretName,omitempty"`
	EnableK8sTokenAuth *bool   `json:"enableK8sTokenAuth,omitempty"`
}

type upgradeStrategy struct {
	Type *string `json:"type,omitempty"`
}

type gcsOptions struct {
	Backend                  string           `json:"backend,omitempty"`
	RedisAddress             string           `json:"redisAddress,omitempty"`
	RedisUsername            *redisCredential `json:"redisUsername,omitempty"`
	RedisPassword            *redisCredential `json:"redisPassword,omitempty"`
	ExternalStorageNamespace string           `json:"externalStorageNamespace,omitempty"`
	Storage                  map[string]any   `json:"storage,omitempty"`
}

type redisCredential struct {
	Value     string               `json:"value,omitempty"`
	ValueFrom *corev1.EnvVarSource `json:"valueFrom,omitempty"`
}

type clusterStatus struct {
	State                   string                  `json:"state,omitempty"`
	Reason                  string                  `json:"reason,omitempty"`
	DesiredCPU              resource.Quantity       `json:"desiredCPU,omitempty"`
	DesiredMemory           resource.Quantity       `json:"desiredMemory,omitempty"`
	DesiredGPU              resource.Quantity       `json:"desiredGPU,omitempty"`
	DesiredTPU              resource.Quantity       `json:"desiredTPU,omitempty"`
	LastUpdateTime          *metav1.Time            `json:"lastUpdateTime,omitempty"`
	StateTransitionTimes    map[string]*metav1.Time `json:"stateTransitionTimes,omitempty"`
	Endpoints               map[string]string       `json:"endpoints,omitempty"`
	Head                    headStatus              `json:"head"`
	Conditions              []metav1.Condition      `json:"conditions,omitempty"`
	ReadyWorkerReplicas     int32                   `json:"readyWorkerReplicas,omitempty"`
	AvailableWorkerReplicas int32                   `json:"availableWorkerReplicas,omitempty"`
	DesiredWorkerReplicas   int32                   `json:"desiredWorkerReplicas,omitempty"`
	MinWorkerReplicas       int32                   `json:"minWorkerReplicas,omitempty"`
	MaxWorkerReplicas       int32                   `json:"maxWorkerReplicas,omitempty"`
	ObservedGeneration      int64                   `json:"observedGeneration,omitempty"`
}

type headStatus struct {
	PodIP       string `json:"podIP,omitempty"`
	PodName     string `json:"podName,omitempty"`
	ServiceIP   string `json:"serviceIP,omitempty"`
	ServiceName string `json:"serviceName,omitempty"`
}
