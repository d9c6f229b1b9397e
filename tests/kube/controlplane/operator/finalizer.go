package operator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// cleanupPatience is how long a deleted cluster waits for its Redis to be cleaned, unless an annotation says else.
const cleanupPatience = 300 * time.Second

// needsFinalizer says that the round is about the finalizer alone: a cluster whose GCS lives in Redis gets one before
// anything else, and is cleaned up before it goes.
func needsFinalizer(cluster *rayCluster) bool {
	return cluster.toleratesHeadLoss() && (cluster.DeletionTimestamp != nil || !hasFinalizer(cluster))
}

func hasFinalizer(cluster *rayCluster) bool {
	return slices.Contains(cluster.Finalizers, finalizerRedis)
}

func (c *controller) finalize(
	ctx context.Context, stored *unstructured.Unstructured, cluster *rayCluster,
) (time.Duration, error) {
	if cluster.DeletionTimestamp == nil {
		return soon, c.setFinalizers(ctx, stored, append(cluster.Finalizers, finalizerRedis))
	}
	left, err := c.emptyOut(ctx, cluster)
	if err != nil {
		return 0, err
	} else if left {
		return 10 * time.Second, nil
	}
	if hasFinalizer(cluster) && time.Since(cluster.DeletionTimestamp.Time) >= patience(cluster) {
		c.warn(cluster, "ForceDeletedStuckCluster", "Cleanup",
			"gave up cleaning the Redis of %s/%s; its keys may be left", cluster.Namespace, cluster.Name)
		return 0, c.dropFinalizer(ctx, stored, cluster)
	}
	return c.cleanRedis(ctx, stored, cluster)
}

func patience(cluster *rayCluster) time.Duration {
	if seconds, err := strconv.Atoi(cluster.Annotations[annotationFinalizerTimeout]); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return cleanupPatience
}

// emptyOut deletes the pods and says whether a head is left, which could still write to Redis.
func (c *controller) emptyOut(ctx context.Context, cluster *rayCluster) (bool, error) {
	for _, kind := range []nodeType{head, worker} {
		if err := c.deleteCollection(ctx, cluster, labels.Set{labelNodeType: string(kind)}); err != nil {
			return false, err
		}
	}
	heads, err := c.podsOf(cluster, labels.Set{labelNodeType: string(head)})
	return len(heads) > 0, err
}

// cleanRedis runs one job, and lets the cluster go when it has ended, well or not.
func (c *controller) cleanRedis(
	ctx context.Context, stored *unstructured.Unstructured, cluster *rayCluster,
) (time.Duration, error) {
	job := cleanupJob(cluster)
	jobs := c.kube.BatchV1().Jobs(cluster.Namespace)
	running, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
	if err == nil {
		if isOver(running) {
			return 0, c.dropFinalizer(ctx, stored, cluster)
		}
		return soon, nil
	} else if !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("look up job %s: %w", job.Name, err)
	}
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		c.warn(cluster, "FailedToCreateRedisCleanupJob", "Create",
			"cannot create job %s/%s: %v", cluster.Namespace, job.Name, err)
		return 0, fmt.Errorf("create job %s: %w", job.Name, err)
	}
	c.tell(cluster, "CreatedRedisCleanupJob", "Create", "created job %s/%s", cluster.Namespace, job.Name)
	return soon, nil
}

func isOver(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(condition batchv1.JobCondition) bool {
		ends := []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobFailureTarget}
		return condition.Status == corev1.ConditionTrue && slices.Contains(ends, condition.Type)
	})
}

func (c *controller) dropFinalizer(
	ctx context.Context, stored *unstructured.Unstructured, cluster *rayCluster,
) error {
	return c.setFinalizers(ctx, stored, slices.DeleteFunc(slices.Clone(cluster.Finalizers),
		func(name string) bool { return name == finalizerRedis }))
}

func (c *controller) setFinalizers(
	ctx context.Context, stored *unstructured.Unstructured, finalizers []string,
) error {
	updated := stored.DeepCopy()
	updated.SetFinalizers(finalizers)
	if _, err := c.client.Namespace(updated.GetNamespace()).Update(ctx, updated, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("set the finalizers of %s: %w", updated.GetName(), err)
	}
	return nil
}

// cleanScript exits with 1 unless Ray has removed the cluster's keys.
const cleanScript = `python -c "
import os, sys
from urllib.parse import urlparse
from ray._private.gcs_utils import cleanup_redis_storage
first = os.environ.get('RAY_REDIS_ADDRESS', '').split(',')[0]
url = urlparse(first if '://' in first else 'redis://' + first)
user = {'username': os.environ['REDIS_USERNAME']} if 'REDIS_USERNAME' in os.environ else {}
password = os.environ.get('REDIS_PASSWORD', url.password or '')
namespace = os.environ.get('RAY_external_storage_namespace')
done = cleanup_redis_storage(
    host=url.hostname, port=url.port, password=password, use_ssl=url.scheme == 'rediss',
    storage_namespace=namespace, **user
)
sys.exit(0 if done else 1)
"`

// cleanupJob runs in a pod like the head's, with the Ray container alone, unprobed, and for five minutes at most.
func cleanupJob(cluster *rayCluster) *batchv1.Job {
	pod := headPod(cluster)
	pod.Labels[labelNodeType] = string(redisCleanup)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers = pod.Spec.Containers[:1]
	ray := rayContainer(pod)
	ray.Command, ray.Args = bash, []string{cleanScript}
	ray.LivenessProbe, ray.ReadinessProbe = nil, nil
	ray.Resources = fixedResources("200m", "256Mi")
	ray.Env = append(ray.Env,
		literal("RAY_redis_db_connect_retries", "120"),
		literal("RAY_redis_db_connect_wait_milliseconds", "500"))
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:            clipLabel(cluster.Name + "-redis-cleanup"),
			Labels:          pod.Labels,
			Annotations:     pod.Annotations,
			OwnerReferences: []metav1.OwnerReference{ownedBy(cluster)},
		},
		Spec: batchv1.JobSpec{
			BackoffLimit:          ptr.To[int32](0),
			ActiveDeadlineSeconds: ptr.To[int64](300),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations},
				Spec:       pod.Spec,
			},
		},
	}
}
