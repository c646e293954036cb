"""Writes tests/data/cases: small models with functions, control flow and sizes that depend on data, in the layout of ONNX's backend tests.

Outputs are those of ONNX Runtime (1.31 when they were recorded); needs onnx, onnxruntime, numpy. `brim verify` reads the folders.

    python tests/tools/make_dynamic_cases.py tests/data/cases
SPDX-License-Identifier: Apache-2.0"""
import numpy as np, onnx, sys, os
from onnx import helper as h, TensorProto as T, numpy_helper as nh
import onnxruntime as ort
def case(name, model, feeds, ref=None):
    feeds={k:np.asarray(v) for k,v in feeds.items()}
    d=f'{sys.argv[1]}/{name}'; os.makedirs(d+'/test_data_set_0',exist_ok=True)
    onnx.save(model,d+'/model.onnx')
    try:
        outs=ort.InferenceSession(model.SerializeToString(),providers=['CPUExecutionProvider']).run(None,feeds)
    except Exception as e:
        print(name,'ORT:',str(e)[:200]); 
        if ref is None: return
        outs=ref
    for i,x in enumerate(model.graph.input):
        open(f'{d}/test_data_set_0/input_{i}.pb','wb').write(nh.from_array(feeds[x.name],x.name).SerializeToString())
    for i,x in enumerate(model.graph.output):
        open(f'{d}/test_data_set_0/output_{i}.pb','wb').write(nh.from_array(np.asarray(outs[i]),x.name).SerializeToString())
if True:
    op=[h.make_opsetid('',17),h.make_opsetid('my',1)]
    leaf=h.make_function('my','Scale',['x','opt'],['y'],[
        h.make_node('Constant',[],['a']), h.make_node('Mul',['x','a'],['m']), h.make_node('Identity',['m'],['y'])],[h.make_opsetid('',17)],['alpha'])
    a=leaf.node[0].attribute.add(); a.name='value_float'; a.ref_attr_name='alpha'; a.type=1
    outer=h.make_function('my','Twice',['x'],['y','z'],[
        h.make_node('Scale',['x'],['t'],domain='my'), h.make_node('Scale',['t'],['y'],domain='my',alpha=3.0), h.make_node('LeakyRelu',['t'],['z'])],op,['beta'],)
    b=outer.node[0].attribute.add(); b.name='alpha'; b.ref_attr_name='beta'; b.type=1
    b=outer.node[2].attribute.add(); b.name='alpha'; b.ref_attr_name='slope'; b.type=1
    outer.attribute_proto.append(h.make_attribute('slope',0.5))
    g=h.make_graph([h.make_node('Twice',['x'],['y','z'],domain='my',beta=-2.0),h.make_node('Twice',['z'],['w',''],domain='my',beta=5.0)],'g',
       [h.make_tensor_value_info('x',T.FLOAT,[2,3])],[h.make_tensor_value_info(n,T.FLOAT,[2,3]) for n in 'yzw'])
    m=h.make_model(g,functions=[leaf,outer],opset_imports=op,ir_version=9)
    x=np.arange(6,dtype=np.float32).reshape(2,3)-2
    t=x*-2; z=np.where(t<0,t*.5,t)
    case('fn_nested',m,{'x':x},[t*3,z,z*15])
rng=np.random.default_rng(0)
V=h.make_tensor_value_info
def M(nodes,ins,outs,init=[],op=17):
    return h.make_model(h.make_graph(nodes,'g',ins,outs,init),opset_imports=[h.make_opsetid('',op)],ir_version=9)
C=lambda n,a: nh.from_array(np.asarray(a),n)
# run-time if with captured
th=h.make_graph([h.make_node('Add',['x','w'],['t'])],'t',[],[V('t',T.FLOAT,None)],[])
el=h.make_graph([h.make_node('Mul',['x','k'],['e1']),h.make_node('ReduceSum',['e1'],['e'],keepdims=0)],'e',[],[V('e',T.FLOAT,None)],[C('k',rng.standard_normal((40,40)).astype('f'))])
m=M([h.make_node('ReduceSum',['x'],['s'],keepdims=0),h.make_node('Greater',['s','z'],['c']),h.make_node('If',['c'],['y'],then_branch=th,else_branch=el),h.make_node('Relu',['y'],['r'])],
  [V('x',T.FLOAT,[40,40])],[V('y',T.FLOAT,None),V('r',T.FLOAT,None)],[C('z',np.float32(0)),C('w',np.ones((1,40),'f'))])
x=rng.standard_normal((40,40)).astype('f')
case('if_run_a',m,{'x':np.abs(x)}); case('if_run_b',m,{'x':-np.abs(x)})
# loop: while sum<limit, scan out of growing size? carried grows
body=h.make_graph([h.make_node('Concat',['a','d'],['a2'],axis=0),h.make_node('ReduceSum',['a2'],['s'],keepdims=0),h.make_node('Less',['s','lim'],['c2']),h.make_node('Identity',['s'],['so']),h.make_node('Identity',['i'],['io'])],'b',
  [V('i',T.INT64,[]),V('c',T.BOOL,[]),V('a',T.FLOAT,None)],[V('c2',T.BOOL,[]),V('a2',T.FLOAT,None),V('so',T.FLOAT,[]),V('io',T.INT64,[])])
m=M([h.make_node('Loop',['','yes','x'],['y','ss','ii'],body=body)],[V('x',T.FLOAT,['n']),V('d',T.FLOAT,['m']),V('lim',T.FLOAT,[])],[V('y',T.FLOAT,None),V('ss',T.FLOAT,None),V('ii',T.INT64,None)],[C('yes',np.array(True))])
case('loop_grow',m,{'x':np.ones(3,'f'),'d':np.ones(2,'f'),'lim':np.float32(30)})
m2=M([h.make_node('Loop',['n','','x'],['y','ss','ii'],body=body)],[V('x',T.FLOAT,['q']),V('d',T.FLOAT,['m']),V('lim',T.FLOAT,[]),V('n',T.INT64,[])],[V('y',T.FLOAT,None),V('ss',T.FLOAT,None),V('ii',T.INT64,None)])
case('loop_zero',m2,{'x':np.ones(3,'f'),'d':np.ones(2,'f'),'lim':np.float32(30),'n':np.int64(0)})
# nested loop
inner=h.make_graph([h.make_node('Add',['v','i'],['v1']),h.make_node('Add',['v1','oi'],['v2']),h.make_node('Identity',['c'],['co']),h.make_node('Identity',['v2'],['sv'])],'in',[V('i',T.INT64,[]),V('c',T.BOOL,[]),V('v',T.INT64,[2])],[V('co',T.BOOL,[]),V('v2',T.INT64,[2]),V('sv',T.INT64,[2])])
outerb=h.make_graph([h.make_node('Loop',['three','','ov'],['r','rows'],body=inner),h.make_node('Identity',['oc'],['oco'])],'out',[V('oi',T.INT64,[]),V('oc',T.BOOL,[]),V('ov',T.INT64,[2])],[V('oco',T.BOOL,[]),V('r',T.INT64,[2]),V('rows',T.INT64,[3,2])])
m=M([h.make_node('Loop',['n','','x'],['y','z'],body=outerb)],[V('x',T.INT64,[2]),V('n',T.INT64,[])],[V('y',T.INT64,[2]),V('z',T.INT64,None)],[C('three',np.int64(3))])
case('loop_nested',m,{'x':np.array([1,2]),'n':np.int64(4)})
# scan rnn with matmul weights, axes/directions
w=rng.standard_normal((64,64)).astype('f')*.1
sb=h.make_graph([h.make_node('MatMul',['hs','w'],['hm']),h.make_node('Add',['hm','xi'],['ha']),h.make_node('Tanh',['ha'],['ho']),h.make_node('Identity',['ho'],['yo'])],'s',[V('hs',T.FLOAT,[1,64]),V('xi',T.FLOAT,[1,64])],[V('ho',T.FLOAT,[1,64]),V('yo',T.FLOAT,[1,64])],[C('w',w)])
for d in (0,1):
    m=M([h.make_node('Scan',['h0','x'],['h','y'],body=sb,num_scan_inputs=1,scan_input_axes=[1],scan_input_directions=[d],scan_output_axes=[-1],scan_output_directions=[1-d])],[V('h0',T.FLOAT,[1,64]),V('x',T.FLOAT,[1,'t',64])],[V('h',T.FLOAT,None),V('y',T.FLOAT,None)])
    case(f'scan_{d}',m,{'h0':np.zeros((1,64),'f'),'x':rng.standard_normal((1,7,64)).astype('f')})
# nonzero -> gather -> matmul
m=M([h.make_node('Greater',['x','z'],['c']),h.make_node('NonZero',['c'],['nz']),h.make_node('Transpose',['nz'],['t'],perm=[1,0]),h.make_node('GatherND',['x','t'],['v']),h.make_node('Unsqueeze',['v','one'],['u']),h.make_node('MatMul',['u','w'],['p']),h.make_node('Shape',['v'],['sh']),h.make_node('ReduceMax',['p'],['mx'],keepdims=0)],
 [V('x',T.FLOAT,['a','b'])],[V(n,t,None) for n,t in (('p',T.FLOAT),('sh',T.INT64),('mx',T.FLOAT),('nz',T.INT64))],[C('z',np.float32(0)),C('one',np.array([1])),C('w',np.ones((1,5),'f'))])
case('nonzero_chain',m,{'x':rng.standard_normal((9,11)).astype('f')})

# yolo nms
nb,nc=200,4
m=M([h.make_node('Conv',['img','cw'],['f'],kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]),h.make_node('Sigmoid',['f'],['sg']),h.make_node('Reshape',['sg','rs'],['r']),h.make_node('Transpose',['r'],['pr'],perm=[0,2,1]),
 h.make_node('Slice',['pr','s0','s4','ax2'],['bx0']),h.make_node('Mul',['bx0','hund'],['bx']),h.make_node('Slice',['r','s4','s9','ax1'],['sc']),
 h.make_node('NonMaxSuppression',['bx','sc','mo','iou','th'],['sel'],center_point_box=1),
 h.make_node('Gather',['sel','i2'],['bi'],axis=1),h.make_node('Squeeze',['bi','ax1'],['bi1']),h.make_node('Gather',['sel','i1'],['ci'],axis=1),h.make_node('Squeeze',['ci','ax1'],['ci1']),
 h.make_node('Squeeze',['bx','ax0'],['b2']),h.make_node('Gather',['b2','bi1'],['outb'],axis=0),
 h.make_node('GatherND',['sc','full'],['outs']),h.make_node('Concat',['zz','ci','bi'],['full'],axis=1),h.make_node('Mul',['ci','zero'],['zz']),
 h.make_node('Shape',['outs'],['n']),h.make_node('Concat',['n','cap'],['nn'],axis=0),h.make_node('ReduceMin',['nn'],['k'],keepdims=1),h.make_node('TopK',['outs','k'],['ts','ti']),h.make_node('Gather',['outb','ti'],['tb'],axis=0)],
 [V('img',T.FLOAT,[1,3,'h','w'])],[V('tb',T.FLOAT,None),V('ts',T.FLOAT,None),V('ci1',T.INT64,None)],
 [C('cw',rng.standard_normal((8,3,3,3)).astype('f')*.2),C('rs',np.array([0,8,-1])),C('s0',np.array([0])),C('s4',np.array([4])),C('s9',np.array([9])),C('ax2',np.array([2])),C('ax1',np.array([1])),C('ax0',np.array([0])),C('hund',np.float32(100)),C('mo',np.array([50])),C('iou',np.array([.5],'f')),C('th',np.array([.6],'f')),C('i2',np.array([2])),C('i1',np.array([1])),C('zero',np.array(0)),C('cap',np.array([30]))])
case('yolo_nms',m,{'img':rng.standard_normal((1,3,20,20)).astype('f')})
case('yolo_nms_b',m,{'img':rng.standard_normal((1,3,32,24)).astype('f')})
# computed reshape / range / expand / resize
m=M([h.make_node('Range',['a','n','st'],['r']),h.make_node('Expand',['r','es'],['ex']),h.make_node('Reshape',['ex','rs'],['y']),h.make_node('ConstantOfShape',['rs'],['z']),h.make_node('Tile',['z','rs'],['q'])],[V('a',T.INT64,[]),V('n',T.INT64,[]),V('st',T.INT64,[]),V('es',T.INT64,[2]),V('rs',T.INT64,[2])],[V(n,t,None) for n,t in (('y',T.INT64),('z',T.FLOAT),('q',T.FLOAT))])
case('computed_shapes',m,{'a':np.int64(1),'n':np.int64(7),'st':np.int64(1),'es':np.array([4,6]),'rs':np.array([3,8])})
