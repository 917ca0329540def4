#include "thread_pool.h"

#include "../graphgen.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace gg {
namespace {

class ThreadPool {
 public:
  void run(int64_t count, int64_t ranges, Range work, void* context) {
    // One parallel region at a time; a second caller works alone rather than waiting.
    std::unique_lock<std::mutex> region(region_, std::try_to_lock);
    if (!region.owns_lock()) return work(context, 0, count);
    grow(static_cast<int>(ranges) - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = work;
      context_ = context;
      count_ = count;
      ranges_ = ranges;
      next_ = 0;
      pending_ = ranges;
      ++generation_;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }

 private:
  void grow(int workers) {
    std::lock_guard<std::mutex> lock(mutex_);
    // With fewer threads than asked for, the caller does more of the work itself.
    try {
      while (static_cast<int>(threads_.size()) < workers) {
        threads_.emplace_back([this, seen = generation_]() mutable {
          for (;;) {
            {
              std::unique_lock<std::mutex> lock(mutex_);
              wake_.wait(lock, [&] { return generation_ != seen; });
              seen = generation_;
            }
            drain();
          }
        });
        threads_.back().detach();
      }
    } catch (const std::system_error&) {
    }
  }

  void drain() {
    for (;;) {
      int64_t range, first, last;
      Range work;
      void* context;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (next_ >= ranges_) return;
        range = next_++;
        first = count_ * range / ranges_;
        last = count_ * (range + 1) / ranges_;
        work = work_;
        context = context_;
      }
      work(context, first, last);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex region_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Range work_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0, ranges_ = 0, next_ = 0, pending_ = 0;
  uint64_t generation_ = 0;
};

// Never destroyed: its threads may outlive static destructors. A forked child starts a new one, because the
// parent's threads and locks do not cross a fork.
ThreadPool* pool = nullptr;
std::once_flag made;

// The caller's OpenMP team, if it lent us one. Two pools of as many threads as there are cores get in each other's
// way: idle OpenMP threads spin for milliseconds on the core that a thread of ours was given work on.
using ParallelRegion = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
std::atomic<ParallelRegion> lent_team{nullptr};

struct Shared {
  Range work;
  void* context;
  int64_t count, ranges;
  std::atomic<int64_t> next{0};
};

void take_ranges(void* data) {
  // By a counter, since the team may be smaller than asked for.
  Shared& shared = *static_cast<Shared*>(data);
  for (int64_t range; (range = shared.next++) < shared.ranges;)
    shared.work(shared.context, shared.count * range / shared.ranges, shared.count * (range + 1) / shared.ranges);
}

void renew() {
  pool = new ThreadPool;
  lent_team = nullptr;  // an OpenMP team does not survive a fork either, and would hang
}

ThreadPool& the_pool() {
  std::call_once(made, [] {
    renew();
    pthread_atfork(nullptr, nullptr, renew);
  });
  return *pool;
}

}  // namespace

void parallel_for(int64_t count, int64_t grain, int threads, Range work, void* context) {
  if (count <= 0) return;
  int64_t ranges = grain > 0 ? count / grain : count;
  if (ranges > threads) ranges = threads;
  if (ranges <= 1) return work(context, 0, count);
  ThreadPool& own = the_pool();
  if (ParallelRegion region = lent_team) {
    Shared shared{work, context, count, ranges};
    return region(take_ranges, &shared, static_cast<unsigned>(ranges), 0);
  }
  own.run(count, ranges, work, context);
}

}  // namespace gg

extern "C" void gg_lend_openmp(void* gomp_parallel) {
  gg::the_pool();  // so that a fork takes the team away again
  gg::lent_team = reinterpret_cast<gg::ParallelRegion>(gomp_parallel);
}
