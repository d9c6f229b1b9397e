package operator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"
)

// ensureReplicas sizes a group whose replicas span several hosts. The pods of a replica live and die together.
func (c *controller) ensureReplicas(
	ctx context.Context, cluster *rayCluster, group *workerGroup, pods []*corev1.Pod,
) error {
	replicas := map[string][]*corev1.Pod{}
	for _, pod := range pods {
		if name, labelled := pod.Labels[labelReplicaName]; labelled {
			replicas[name] = append(replicas[name], pod)
		}
	}
	for name, hosts := range replicas {
		if len(hosts) < int(group.NumOfHosts) {
			if err := c.deleteReplica(ctx, cluster, group, hosts, "its replica is incomplete"); err != nil {
				return err
			}
			return fmt.Errorf("deleted the incomplete replica %s of group %s", name, group.GroupName)
		}
	}
	if err := c.deleteFailedReplicas(ctx, cluster, group, replicas); err != nil {
		return err
	}
	if named, err := c.deleteNamedReplicas(ctx, cluster, group, replicas); err != nil {
		return err
	} else if named > 0 {
		return fmt.Errorf("deleted %d replicas of group %s by name", named, group.GroupName)
	}
	return c.resizeReplicas(ctx, cluster, group, replicas)
}

func (c *controller) deleteReplica(
	ctx context.Context, cluster *rayCluster, group *workerGroup, hosts []*corev1.Pod, why string,
) error {
	for _, pod := range hosts {
		if err := c.deleteWorker(ctx, cluster, group, pod.Name, why); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (c *controller) deleteFailedReplicas(
	ctx context.Context, cluster *rayCluster, group *workerGroup, replicas map[string][]*corev1.Pod,
) error {
	for name, hosts := range replicas {
		for _, pod := range hosts {
			end := endOf(pod)
			if end == "" {
				continue
			}
			if err := c.deleteReplica(ctx, cluster, group, hosts, "of its replica, "+pod.Name+" "+end); err != nil {
				return err
			}
			delete(replicas, name)
			break
		}
	}
	return nil
}

// deleteNamedReplicas deletes the whole replica of each pod that workersToDelete names.
func (c *controller) deleteNamedReplicas(
	ctx context.Context, cluster *rayCluster, group *workerGroup, replicas map[string][]*corev1.Pod,
) (int, error) {
	count := 0
	for _, hosts := range replicas {
		named := slices.ContainsFunc(hosts, func(pod *corev1.Pod) bool {
			return slices.Contains(group.ScaleStrategy.WorkersToDelete, pod.Name)
		})
		if !named {
			continue
		}
		if err := c.deleteReplica(ctx, cluster, group, hosts, "scaleStrategy names one of its replica"); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

func (c *controller) resizeReplicas(
	ctx context.Context, cluster *rayCluster, group *workerGroup, replicas map[string][]*corev1.Pod,
) error {
	missing := int(group.wanted()/group.NumOfHosts) - len(replicas)
	if missing >= 0 {
		return c.createReplicas(ctx, cluster, group, missing, replicas)
	}
	if cluster.Spec.autoscales() {
		return nil // the autoscaler alone says which replicas go
	}
	for _, hosts := range replicas {
		if missing == 0 {
			break
		}
		if err := c.deleteReplica(ctx, cluster, group, hosts, "the group has too many replicas"); err != nil {
			return err
		}
		missing++
	}
	return nil
}

func (c *controller) createReplicas(
	ctx context.Context, cluster *rayCluster, group *workerGroup, count int, replicas map[string][]*corev1.Pod,
) error {
	taken := map[int]bool{}
	for _, hosts := range replicas {
		maps.Copy(taken, indexesOf(hosts[:1]))
	}
	for range count {
		place := host{replicaName: group.GroupName + "-" + rand.String(5), replicaIndex: takeIndex(taken)}
		for place.hostIndex = range int(group.NumOfHosts) {
			if err := c.createWorker(ctx, cluster, group, place); err != nil {
				return err
			}
		}
	}
	return nil
}
