
import ray

@ray.remote
def noop():
    pass

ray.init(address="local", include_dashboard=False)
ray.get(noop.remote())
