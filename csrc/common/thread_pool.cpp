#include "thread_pool.h"

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

void renew() { pool = new ThreadPool; }

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
  the_pool().run(count, ranges, work, context);
}

}  // namespace gg
