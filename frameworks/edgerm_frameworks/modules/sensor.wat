;; A sensor, and a map over what it reads. WASI preview 1.
;;
;; Arguments: SEED READINGS EVERY PERIOD_MS, decimal numbers. READINGS 0: without end. EVERY: 1 or more.
;; stdout:    the mean of each EVERY readings, a line each, three decimals, cut.
;; Exit code: 0; 2 if an argument is missing or is no number, with one line on stderr.
;;
;; The readings are made here (a generator seeded with SEED, 15.000 to 24.999), PERIOD_MS apart, so that the samples run
;; on any box. A module for a real sensor differs in $read only.
;;
;; Memory: 0 scratch, 64 pointers of arguments, 128 a subscription, 192 its event, 320 a line, 512 texts, 1024 arguments.
(module $sensor
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 1)
  (data (i32.const 512) "usage: sensor SEED READINGS EVERY PERIOD_MS\n")

  (global $state (mut i64) (i64.const 0))
  (global $period_ms (mut i64) (i64.const 0))

  (func $write (param $fd i32) (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1)))))

  (func $fail_usage
    (call $write (i32.const 2) (i32.const 512) (i32.const 44))
    (call $proc_exit (i32.const 2)))

  ;; An argument as a number of at most 18 digits.
  (func $argument (param $index i32) (result i64) (local $at i32) (local $digit i32) (local $digits i32) (local $n i64)
    (local.set $at (i32.load (i32.add (i32.const 64) (i32.shl (local.get $index) (i32.const 2)))))
    (loop $each
      (if (i32.load8_u (local.get $at))
        (then
          (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
          (local.set $digits (i32.add (local.get $digits) (i32.const 1)))
          (if (i32.or (i32.ge_u (local.get $digit) (i32.const 10)) (i32.gt_u (local.get $digits) (i32.const 18)))
            (then (call $fail_usage)))
          (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $each))))
    (if (i32.eqz (local.get $digits)) (then (call $fail_usage)))
    (local.get $n))

  (func $sleep
    (if (i64.eqz (global.get $period_ms)) (then (return)))
    ;; One subscription: the monotonic clock, relative.
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.mul (global.get $period_ms) (i64.const 1000000)))
    (if (call $poll_oneoff (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 240)) (then unreachable)))

  ;; What the sensor reads now, in thousandths.
  (func $read (result i64)
    (global.set $state
      (i64.add (i64.mul (global.get $state) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (i64.add (i64.const 15000) (i64.rem_u (i64.shr_u (global.get $state) (i64.const 33)) (i64.const 10000))))

  ;; A line with so many thousandths, written from its end.
  (func $say (param $n i64) (local $at i32) (local $digits i32)
    (local.set $at (i32.const 383))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $each
      (if (i32.eq (local.get $digits) (i32.const 3))
        (then
          (local.set $at (i32.sub (local.get $at) (i32.const 1)))
          (i32.store8 (local.get $at) (i32.const 46))))
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (local.set $digits (i32.add (local.get $digits) (i32.const 1)))
      (br_if $each (i32.or (i64.ne (local.get $n) (i64.const 0)) (i32.lt_u (local.get $digits) (i32.const 4)))))
    (call $write (i32.const 1) (local.get $at) (i32.sub (i32.const 384) (local.get $at))))

  (func (export "_start") (local $readings i64) (local $every i64) (local $done i64) (local $sum i64)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.or (i32.ne (i32.load (i32.const 0)) (i32.const 5)) (i32.gt_u (i32.load (i32.const 4)) (i32.const 8192)))
      (then (call $fail_usage)))
    (drop (call $args_get (i32.const 64) (i32.const 1024)))
    (global.set $state (call $argument (i32.const 1)))
    (local.set $readings (call $argument (i32.const 2)))
    (local.set $every (call $argument (i32.const 3)))
    (global.set $period_ms (call $argument (i32.const 4)))
    (if (i64.eqz (local.get $every)) (then (call $fail_usage)))
    (loop $each
      (local.set $sum (i64.add (local.get $sum) (call $read)))
      (local.set $done (i64.add (local.get $done) (i64.const 1)))
      (if (i64.eqz (i64.rem_u (local.get $done) (local.get $every)))
        (then
          (call $say (i64.div_u (local.get $sum) (local.get $every)))
          (local.set $sum (i64.const 0))))
      (if (i64.ne (local.get $done) (local.get $readings))
        (then (call $sleep) (br $each))))))
