// A Program with every instruction on tensors at least once, as Print gives it: what tests of the
// instruction set are made from.
#pragma once

namespace millpower::isa {

inline constexpr char kTestTensors[] = R"(program tensors
register batch 8
register seq 6
register bags 5
register batch*seq 48 = batch*seq
register seq-1 5 = seq-1
register bags-1 4 = bags-1
semaphores 0
buffer x input f32 rows [batch, 6]
buffer ids input i64 rows [batch, 3] below 100
buffer pairs input i32 rows [batch*seq, 1]
buffer list input i32 rows [batch*seq, 1]
buffer offsets input i64 rows [bags, 1]
buffer one input i32 rows [1, 1]
buffer shares input f32 rows [batch, 3]
buffer places input i64 rows [batch, 1]
buffer image input f32 rows [batch, 50]
buffer table weight i8 table [100, 6]
buffer bias weight f32 rows [1, 6]
buffer picks weight i32 rows [1, 2]
buffer square weight f32 rows [1, 24]
buffer other weight f64 rows [1, 24]
buffer kernel weight f32 rows [1, 36]
buffer channels weight f32 rows [1, 4]
buffer packed weight f32 packed [16, 6]
buffer wide.bias weight f32 rows [1, 16]
buffer sums scratch f32 rows [batch, 1]
buffer mapped scratch f32 rows [batch, 6]
buffer mask scratch bool rows [batch, 6]
buffer any scratch bool rows [batch, 1]
buffer best scratch i64 rows [batch, 1]
buffer turned scratch i32 rows [batch*seq, 1]
buffer products scratch f32 rows [batch, 4]
buffer convolved scratch f32 rows [batch, 36]
buffer pooled scratch f32 rows [batch, 18]
buffer taken scratch f32 rows [batch, 2]
buffer along scratch f32 rows [batch, 1]
buffer picked scratch f32 rows [batch, 1]
buffer scattered scratch f32 rows [batch, 6]
buffer wide scratch f32 rows [batch, 8]
buffer bags scratch f32 rows [batch, 6]
buffer ragged scratch f32 rows [bags-1, 6]
buffer soft scratch f32 rows [batch, 6]
buffer top scratch i64 rows [batch, 2]
buffer running scratch f32 rows [batch, 6]
buffer dense output f32 rows [batch, 16]
buffer one.f output f32 rows [1, 1]
stream compute
  reduce x=x:[batch,6] y=sums:[batch,1] kind=0 axes=[1]
  map x0=x:[batch,6] x1=bias:[6] y=mapped:[batch,6] code={t0=x0:f32;t1=neg:f32(t0);t2=x1:f32;t3=add:f32(t1,t2)} sizes=[]
  map x0=mapped:[batch,6] y=mapped:[batch,6] code={t0=x0:f32;t1=relu:f32(t0)} sizes=[]
  map y=mask:[batch,6] code={t0=index:i64(1);t1=size:i64(0);t2=less:bool(t0,t1)} sizes=[seq-1]
  reduce x=mask:[batch,6] y=any:[batch,1] kind=9 axes=[1]
  reduce x=mapped:[batch,6] y=best:[batch,1] kind=5 axes=[1]
  copy x=pairs:[batch,seq] y=turned:[seq,batch] perm=[1,0] begin=[0,seq-1] step=[1,-1] window=[seq,batch] at=[0,0] gap=[1,1]
  contract a=x:[batch,1,6] b=square:[4,6] y=products:[batch,1,4] transpose_a=0 transpose_b=1
  conv x=image:[batch,2,5,5] w=kernel:[4,1,3,3] bias=channels:[4] y=convolved:[batch,4,3,3] strides=[2,2] pads_begin=[1,1] pads_end=[1,1] dilations=[1,1] groups=2
  pool x=image:[batch,2,5,5] y=pooled:[batch,2,3,3] kind=1 kernel=[2,2] strides=[2,2] pads_begin=[0,1] pads_end=[1,0] dilations=[1,1] count_padding=0
  take x=x:[batch,6] index=picks:[2] y=taken:[batch,2] axis=1 policy=0
  take_along x=x:[batch,6] index=places:[batch,1] y=along:[batch,1] axis=1 policy=2
  gather_nd x=x:[batch,6] index=places:[batch,1] y=picked:[batch] batch_dims=1 policy=1
  map y=scattered:[batch,6] code={t0=const:f32(0)} sizes=[]
  scatter index=places:[batch,1] updates=along:[batch,1] y=scattered:[batch,6] mode=0 axis=1 reduction=1 policy=0
  scatter index=places:[batch,1] updates=x:[batch,6] y=scattered:[batch,6] mode=1 axis=0 reduction=0 policy=0
  map y=wide:[batch,8] code={t0=const:f32(-0)} sizes=[]
  embedding_bag table=table index=ids:[batch,3] weights=shares:[batch,3] y=bags:[batch,6] mode=1 ends=0 policy=3 default_row=7 padding_row=-1
  embedding_bag table=table index=list:[batch*seq] offsets=offsets:[bags] y=ragged:[bags-1,6] mode=0 ends=1 policy=2 default_row=-1 padding_row=0
  softmax x=x:[batch,6] y=soft:[batch,6] log=0
  layer_norm x=soft:[batch,6] weight=bias:[6] bias=bias:[6] y=soft:[batch,6] epsilon=1e-05
  rms_norm x=x weight=bias y=mapped group=6 epsilon=1e-06
  top_k x=x:[batch,6] y=top:[batch,2] largest=1
  cumulate x=x:[batch,6] y=running:[batch,6] kind=0 axis=0 exclusive=1 reverse=1
  matmul x=x w=packed y=dense epilogue=relu
  end
stream transfer
  end
stream link
  end
)";

}  // namespace millpower::isa
