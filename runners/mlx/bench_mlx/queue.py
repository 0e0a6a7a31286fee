"""Requests that have not started yet: those that are due at a time, and those that wait for another."""

import heapq

NOT_STARTED = {
    "kind": "not-started",
    "reason": "the trial's time was over before the request could start",
}


class Waiting:
    """As `src/runner/batching.rs` has it for the engines in Rust, so that all do the same work."""

    def __init__(self, requests):
        self.requests = requests
        self.due = []
        self.followers = [[] for _ in requests]
        for place, request in enumerate(requests):
            before = request.get("after")
            if before is None:
                heapq.heappush(self.due, (request.get("start_ns", 0), place))
            elif before < place:
                self.followers[before].append(place)
            else:
                raise ValueError(f"request {place} waits for request {before}, which is not before it")

    def __bool__(self):
        return bool(self.due)

    def next_at(self):
        """When the next one is due."""
        return self.due[0][0]

    def take(self, now, room, samples):
        """At most `room` requests that are due; a request is the engine's since it was due.

        One that is due after its latest start is left out, and ends those that would follow it.
        """
        taken = []
        while self.due:
            at, place = self.due[0]
            latest = self.requests[place].get("latest_ns")
            if latest is not None and at > latest:
                heapq.heappop(self.due)
                samples[place]["served"] = {"error": NOT_STARTED}
                self.ended(place, at)
            elif at > now or len(taken) >= room:
                break
            else:
                heapq.heappop(self.due)
                samples[place]["intended_ns"] = samples[place]["sent_ns"] = at
                taken.append(place)
        return taken

    def ended(self, place, end):
        """Those that waited for this request are due after their pause."""
        for follower in self.followers[place]:
            request = self.requests[follower]
            at = max(request.get("start_ns", 0), end + request.get("think_ns", 0))
            heapq.heappush(self.due, (at, follower))
        self.followers[place] = []
