;; Statistics of a sensor series, window by window. WASI preview 1.
;;
;; Arguments: SAMPLES_PER_WINDOW (1 to 1000000).
;; stdin:     one sample a line, `VALUE` or `TIMESTAMP VALUE`; columns end at blanks or commas, the last one counts.
;;            Decimal numbers below a billion; digits after the third decimal are cut off. Empty lines are skipped.
;; stdout:    a line per window, the last one may be short: INDEX COUNT MIN MAX MEAN STDDEV (of the population), three
;;            decimals, ties of mean and deviation to even.
;; Exit code: 0; 2 if the argument or a line is not as above, with one line on stderr.
;;
;; Samples are 64-bit thousandths. Mean and deviation are computed in double precision, in order, so any IEEE 754
;; implementation that does the same steps gets the same digits.
;;
;; Memory: 0 scratch, 1024 arguments, 4096 output, 12288 texts, 16384 input, 131072 samples.
(module $windowed_stats
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)
  (data (i32.const 12288) "usage: windowed_stats SAMPLES_PER_WINDOW (1 to 1000000), samples on stdin\n")
  (data (i32.const 12400) "windowed_stats: no number, or one of more than 9 digits, in line ")

  (global $window_size (mut i32) (i32.const 0))
  (global $count (mut i32) (i32.const 0))        ;; samples in the window
  (global $window (mut i64) (i64.const 0))       ;; index of the window
  (global $line (mut i64) (i64.const 1))
  (global $fd (mut i32) (i32.const 1))           ;; where output goes
  (global $out (mut i32) (i32.const 4096))       ;; next free byte of the output buffer
  ;; The column that is being read, and the last whole one of the line.
  (global $negative (mut i32) (i32.const 0))
  (global $digits (mut i32) (i32.const 0))
  (global $point (mut i32) (i32.const 0))        ;; 0: no point yet; else 1 + decimals taken
  (global $number (mut i64) (i64.const 0))
  (global $has_column (mut i32) (i32.const 0))
  (global $column (mut i64) (i64.const 0))

  ;; Output.

  (func $flush (local $from i32)
    (local.set $from (i32.const 4096))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $from) (global.get $out)))
        (i32.store (i32.const 0) (local.get $from))
        (i32.store (i32.const 4) (i32.sub (global.get $out) (local.get $from)))
        (if (call $fd_write (global.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
          (then (call $proc_exit (i32.const 1))))
        (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
        (br $more)))
    (global.set $out (i32.const 4096)))

  (func $put (param $char i32)
    (i32.store8 (global.get $out) (local.get $char))
    (global.set $out (i32.add (global.get $out) (i32.const 1)))
    (if (i32.eq (global.get $out) (i32.const 12288)) (then (call $flush))))

  (func $put_number (param $n i64)
    (if (i64.ge_u (local.get $n) (i64.const 10))
      (then (call $put_number (i64.div_u (local.get $n) (i64.const 10)))))
    (call $put (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10))))))

  ;; A blank, and thousandths with three decimals.
  (func $put_thousandths (param $n i64)
    (call $put (i32.const 32))
    (if (i64.lt_s (local.get $n) (i64.const 0))
      (then
        (call $put (i32.const 45))
        (local.set $n (i64.sub (i64.const 0) (local.get $n)))))
    (call $put_number (i64.div_u (local.get $n) (i64.const 1000)))
    (call $put (i32.const 46))
    (local.set $n (i64.rem_u (local.get $n) (i64.const 1000)))
    (call $put (i32.add (i32.const 48) (i32.wrap_i64 (i64.div_u (local.get $n) (i64.const 100)))))
    (call $put (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (i64.div_u (local.get $n) (i64.const 10)) (i64.const 10)))))
    (call $put (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10))))))

  ;; What was computed so far goes out, then $size bytes of text on stderr.
  (func $complain (param $text i32) (param $size i32)
    (call $flush)
    (global.set $fd (i32.const 2))
    (memory.copy (i32.const 4096) (local.get $text) (local.get $size))
    (global.set $out (i32.add (i32.const 4096) (local.get $size))))

  (func $fail_usage
    (call $complain (i32.const 12288) (i32.const 74))
    (call $flush)
    (call $proc_exit (i32.const 2))
    unreachable)

  (func $fail_line
    (call $complain (i32.const 12400) (i32.const 65))
    (call $put_number (global.get $line))
    (call $put (i32.const 10))
    (call $flush)
    (call $proc_exit (i32.const 2))
    unreachable)

  ;; Windows.

  (func $sample (param $index i32) (result i64)
    (i64.load (i32.add (i32.const 131072) (i32.shl (local.get $index) (i32.const 3)))))

  (func $end_window
    (local $i i32) (local $x i64) (local $min i64) (local $max i64) (local $sum i64)
    (local $mean f64) (local $d f64) (local $squares f64)
    (local.set $min (call $sample (i32.const 0)))
    (local.set $max (local.get $min))
    (loop $each
      (local.set $x (call $sample (local.get $i)))
      (local.set $sum (i64.add (local.get $sum) (local.get $x)))
      (if (i64.lt_s (local.get $x) (local.get $min)) (then (local.set $min (local.get $x))))
      (if (i64.gt_s (local.get $x) (local.get $max)) (then (local.set $max (local.get $x))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $each (i32.lt_u (local.get $i) (global.get $count))))
    (local.set $mean (f64.div (f64.convert_i64_s (local.get $sum)) (f64.convert_i32_u (global.get $count))))
    (local.set $i (i32.const 0))
    (loop $each
      (local.set $d (f64.sub (f64.convert_i64_s (call $sample (local.get $i))) (local.get $mean)))
      (local.set $squares (f64.add (local.get $squares) (f64.mul (local.get $d) (local.get $d))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $each (i32.lt_u (local.get $i) (global.get $count))))
    (call $put_number (global.get $window))
    (call $put (i32.const 32))
    (call $put_number (i64.extend_i32_u (global.get $count)))
    (call $put_thousandths (local.get $min))
    (call $put_thousandths (local.get $max))
    (call $put_thousandths (i64.trunc_f64_s (f64.nearest (local.get $mean))))
    (call $put_thousandths (i64.trunc_f64_s (f64.nearest
      (f64.sqrt (f64.div (local.get $squares) (f64.convert_i32_u (global.get $count)))))))
    (call $put (i32.const 10))
    (global.set $window (i64.add (global.get $window) (i64.const 1)))
    (global.set $count (i32.const 0)))

  (func $add_sample (param $x i64)
    (if (i64.ge_u (i64.add (local.get $x) (i64.const 999999999999)) (i64.const 1999999999999))
      (then (call $fail_line)))
    (i64.store (i32.add (i32.const 131072) (i32.shl (global.get $count) (i32.const 3))) (local.get $x))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (if (i32.eq (global.get $count) (global.get $window_size)) (then (call $end_window))))

  ;; Input.

  (func $end_column
    (if (i32.and (i32.eqz (global.get $digits)) (i32.lt_u (global.get $point) (i32.const 2)))
      (then
        (if (i32.or (global.get $negative) (global.get $point)) (then (call $fail_line)))
        (return)))
    (if (i32.eqz (global.get $point)) (then (global.set $point (i32.const 1))))
    (block $scaled
      (loop $scale
        (br_if $scaled (i32.eq (global.get $point) (i32.const 4)))
        (global.set $number (i64.mul (global.get $number) (i64.const 10)))
        (global.set $point (i32.add (global.get $point) (i32.const 1)))
        (br $scale)))
    (global.set $column
      (select (i64.sub (i64.const 0) (global.get $number)) (global.get $number) (global.get $negative)))
    (global.set $has_column (i32.const 1))
    (global.set $negative (i32.const 0))
    (global.set $digits (i32.const 0))
    (global.set $point (i32.const 0))
    (global.set $number (i64.const 0)))

  (func $end_line
    (call $end_column)
    (if (global.get $has_column) (then (call $add_sample (global.get $column))))
    (global.set $has_column (i32.const 0))
    (global.set $line (i64.add (global.get $line) (i64.const 1))))

  (func $take_digit (param $digit i64)
    (if (i32.eqz (global.get $point))
      (then
        (global.set $digits (i32.add (global.get $digits) (i32.const 1)))
        (if (i32.gt_u (global.get $digits) (i32.const 15)) (then (call $fail_line))))
      (else
        (if (i32.eq (global.get $point) (i32.const 4)) (then (return)))
        (global.set $point (i32.add (global.get $point) (i32.const 1)))))
    (global.set $number (i64.add (i64.mul (global.get $number) (i64.const 10)) (local.get $digit))))

  (func $take (param $char i32)
    (if (i32.lt_u (i32.sub (local.get $char) (i32.const 48)) (i32.const 10))
      (then (call $take_digit (i64.extend_i32_u (i32.sub (local.get $char) (i32.const 48)))) (return)))
    (if (i32.eq (local.get $char) (i32.const 10)) (then (call $end_line) (return)))
    (if (i32.or (i32.or (i32.eq (local.get $char) (i32.const 32)) (i32.eq (local.get $char) (i32.const 9)))
                (i32.or (i32.eq (local.get $char) (i32.const 13)) (i32.eq (local.get $char) (i32.const 44))))
      (then (call $end_column) (return)))
    (if (i32.and (i32.eq (local.get $char) (i32.const 46)) (i32.eqz (global.get $point)))
      (then (global.set $point (i32.const 1)) (return)))
    (if (i32.and (i32.eq (local.get $char) (i32.const 45))
                 (i32.eqz (i32.or (i32.or (global.get $negative) (global.get $digits)) (global.get $point))))
      (then (global.set $negative (i32.const 1)) (return)))
    (call $fail_line))

  (func $read_all (local $i i32) (local $size i32)
    (loop $more
      (i32.store (i32.const 0) (i32.const 16384))
      (i32.store (i32.const 4) (i32.const 65536))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $size (i32.load (i32.const 8)))
      (if (i32.eqz (local.get $size)) (then (return)))
      (local.set $i (i32.const 0))
      (loop $each
        (call $take (i32.load8_u (i32.add (i32.const 16384) (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (local.get $size))))
      (br $more)))

  ;; The first argument as a number from 1 to 1000000; anything else ends the program.
  (func $window_size_of_arguments (result i32) (local $at i32) (local $char i32) (local $n i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.or (i32.ne (i32.load (i32.const 0)) (i32.const 2)) (i32.gt_u (i32.load (i32.const 4)) (i32.const 2048)))
      (then (call $fail_usage)))
    (drop (call $args_get (i32.const 16) (i32.const 1024)))
    (local.set $at (i32.load (i32.const 20)))
    (loop $each
      (local.set $char (i32.load8_u (local.get $at)))
      (if (local.get $char)
        (then
          (local.set $char (i32.sub (local.get $char) (i32.const 48)))
          (if (i32.ge_u (local.get $char) (i32.const 10)) (then (call $fail_usage)))
          (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10)) (local.get $char)))
          (if (i32.gt_u (local.get $n) (i32.const 1000000)) (then (call $fail_usage)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $each))))
    (if (i32.eqz (local.get $n)) (then (call $fail_usage)))
    (local.get $n))

  (func (export "_start")
    (global.set $window_size (call $window_size_of_arguments))
    ;; Room for one window: 8 bytes a sample, in pages of 65536.
    (if (i32.eq (memory.grow (i32.shr_u (i32.add (i32.shl (global.get $window_size) (i32.const 3)) (i32.const 65535))
                                        (i32.const 16)))
                (i32.const -1))
      (then unreachable))
    (call $read_all)
    (call $end_line)
    (if (global.get $count) (then (call $end_window)))
    (call $flush)))
