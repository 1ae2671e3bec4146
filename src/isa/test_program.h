// One layer of small language models with a vocabulary of 64, as the compiler lays them out: what
// tests of Programs, devices and engines are made from.
#pragma once

namespace millpower::isa {

// All but the first lines of the text form: the program's name, its facts, and the registers rows,
// seqs, picked, adjusts, page_entries and pages (at_load).
inline constexpr char kTestModelBody[] = R"(semaphores 2
buffer tokens input i32 rows [rows, 1] below 64
buffer positions input i32 rows [rows, 1]
buffer sequences input i32 rows [seqs, 4]
buffer pages input i32 rows [page_entries, 1] below pages
buffer picked_rows input i32 rows [picked, 1] below rows
buffer sampling input i32 rows [picked, 12]
buffer adjust_tokens input i32 rows [adjusts, 1] below 64
buffer adjustments input i32 rows [adjusts, 2]
buffer embed weight bf16 packed [64, 32]
buffer inv_freq weight f32 rows [1, 4]
buffer norm weight f32 rows [1, 32]
buffer qkv.weight weight f32 packed [32, 32]
buffer o.weight weight f32 packed [32, 16]
buffer gated weight f32 packed [64, 32]
buffer down weight f32 packed [32, 32]
buffer kv.0 kv bf16 pages [pages, 1 x 8]
buffer h scratch f32 rows [rows, 32]
buffer normed scratch f32 rows [rows, 32]
buffer qkv scratch f32 rows [rows, 32]
buffer table scratch f32 rows [rows, 8]
buffer attended scratch f32 rows [rows, 16]
buffer picked.h scratch f32 rows [picked, 32]
buffer logits output f32 rows [picked, 64]
buffer sampled output i32 rows [picked, 44]
stream compute
  rope_table positions=positions inv_freq=inv_freq table=table scale=1
  wait semaphore=0 count=1
  rms_norm x=h weight=norm y=normed group=32 epsilon=1e-06
  matmul x=normed w=qkv.weight y=qkv epilogue=none
  rope x=qkv[0:24] table=table heads=3
  post semaphore=1 count=1
  wait semaphore=0 count=1
  attention q=qkv[0:16] sequences=sequences pages=pages kv=kv.0 out=attended heads=2 scale=0.35 window=0
  matmul x=attended w=o.weight residual=h y=h epilogue=add
  rms_norm x=h weight=norm y=normed group=32 epsilon=1e-06
  matmul x=normed w=gated y=qkv epilogue=silu_gate
  matmul x=qkv w=down residual=h y=h epilogue=add
  post semaphore=1 count=1
  wait semaphore=0 count=1
  rms_norm x=picked.h weight=norm y=picked.h group=32 epsilon=1e-06
  matmul x=picked.h w=embed y=logits epilogue=none
  sample logits=logits params=sampling adjust_tokens=adjust_tokens adjustments=adjustments record=sampled
  end
stream transfer
  gather table=embed index=tokens y=h
  post semaphore=0 count=1
  wait semaphore=1 count=1
  kv_append k=qkv[16:24] v=qkv[24:32] sequences=sequences pages=pages kv=kv.0
  post semaphore=0 count=1
  wait semaphore=1 count=1
  gather table=h index=picked_rows y=picked.h
  post semaphore=0 count=1
  end
stream link
  end
)";

// The same for a model of quantised weights and 8-bit pages whose rows choose 2 of 6 experts.
inline constexpr char kTestExpertsBody[] = R"(semaphores 2
buffer tokens input i32 rows [rows, 1] below 64
buffer positions input i32 rows [rows, 1]
buffer sequences input i32 rows [seqs, 4]
buffer pages input i32 rows [page_entries, 1] below pages
buffer picked_rows input i32 rows [picked, 1] below rows
buffer sampling input i32 rows [picked, 12]
buffer adjust_tokens input i32 rows [adjusts, 1] below 64
buffer adjustments input i32 rows [adjusts, 2]
buffer embed weight q8_0 packed [64, 32]
buffer inv_freq weight f32 rows [1, 4]
buffer norm weight f32 rows [1, 32]
buffer qkv.weight weight q4_0 packed [32, 32]
buffer o.weight weight q8_0 packed [32, 16]
buffer router weight f32 packed [6, 32]
buffer gated weight q4_0 packed [384, 32]
buffer down weight q8_0 packed [192, 32]
buffer kv.0 kv i8 pages [pages, 1 x 8]
buffer h scratch f32 rows [rows, 32]
buffer normed scratch f32 rows [rows, 32]
buffer normed.q scratch i8 quantised [rows, 32]
buffer qkv scratch f32 rows [rows, 32]
buffer table scratch f32 rows [rows, 8]
buffer attended scratch f32 rows [rows, 16]
buffer attended.q scratch i8 quantised [rows, 16]
buffer scores scratch f32 rows [rows, 6]
buffer list scratch i32 experts [rows, 6 x 2]
buffer shares scratch f32 rows [rows, 2]
buffer inner scratch f32 rows [rows, 64]
buffer inner.q scratch i8 quantised [rows, 64]
buffer outs scratch f32 rows [rows, 64]
buffer picked.h scratch f32 rows [picked, 32]
buffer picked.q scratch i8 quantised [picked, 32]
buffer logits output f32 rows [picked, 64]
buffer sampled output i32 rows [picked, 44]
stream compute
  rope_table positions=positions inv_freq=inv_freq table=table scale=1
  wait semaphore=0 count=1
  rms_norm x=h weight=norm y=normed group=32 epsilon=1e-06
  quantise x=normed y=normed.q
  matmul x=normed.q w=qkv.weight y=qkv epilogue=none
  rope x=qkv[0:24] table=table heads=3
  post semaphore=1 count=1
  wait semaphore=0 count=1
  attention q=qkv[0:16] sequences=sequences pages=pages kv=kv.0 out=attended heads=2 scale=0.35 window=0
  quantise x=attended y=attended.q
  matmul x=attended.q w=o.weight residual=h y=h epilogue=add
  rms_norm x=h weight=norm y=normed group=32 epsilon=1e-06
  matmul x=normed w=router y=scores epilogue=none
  route logits=scores list=list weights=shares normalise=1
  quantise x=normed y=normed.q
  expert_matmul x=normed.q w=gated list=list y=inner epilogue=silu_gate
  quantise x=inner y=inner.q
  expert_matmul x=inner.q w=down list=list y=outs epilogue=none
  combine x=outs weights=shares residual=h y=h
  post semaphore=1 count=1
  wait semaphore=0 count=1
  rms_norm x=picked.h weight=norm y=picked.h group=32 epsilon=1e-06
  quantise x=picked.h y=picked.q
  matmul x=picked.q w=embed y=logits epilogue=none
  sample logits=logits params=sampling adjust_tokens=adjust_tokens adjustments=adjustments record=sampled
  end
stream transfer
  gather table=embed index=tokens y=h
  post semaphore=0 count=1
  wait semaphore=1 count=1
  kv_append k=qkv[16:24] v=qkv[24:32] sequences=sequences pages=pages kv=kv.0
  post semaphore=0 count=1
  wait semaphore=1 count=1
  gather table=h index=picked_rows y=picked.h
  post semaphore=0 count=1
  end
stream link
  end
)";

}  // namespace millpower::isa
