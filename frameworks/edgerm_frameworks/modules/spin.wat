;; A fixed piece of work for a processor, timed where it runs. WASI preview 1.
;;
;; stdout: how many nanoseconds 20 million dependent steps (a multiplication and an addition) took.
;; Memory: 0 scratch, 16 the clock, 64 a line.
(module $spin
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 1)

  (func $now_ns (result i64)
    (if (call $clock_time_get (i32.const 1) (i64.const 1000) (i32.const 16)) (then unreachable))
    (i64.load (i32.const 16)))

  (func $work (result i64) (local $state i64) (local $left i32)
    (local.set $left (i32.const 20000000))
    (loop $each
      (local.set $state
        (i64.add (i64.mul (local.get $state) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $each (local.get $left)))
    (local.get $state))

  (func $say (param $n i64) (local $at i32)
    (local.set $at (i32.const 95))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $each
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (br_if $each (i64.ne (local.get $n) (i64.const 0))))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 96) (local.get $at)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start") (local $begin i64)
    (local.set $begin (call $now_ns))
    ;; Stored, so that no compiler leaves the work out.
    (i64.store (i32.const 32) (call $work))
    (call $say (i64.sub (call $now_ns) (local.get $begin)))))
