"""llama.cpp's own quantisation, as its program `quantize` does it: LIB_FOLDER F32.gguf OUT.gguf KIND

LIB_FOLDER holds libllama and libggml of the package node-llama-cpp 3.22. Only the standard library is needed.
"""

import ctypes
import glob
import os
import sys

folder, source, out, kind = sys.argv[1:]
KINDS = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k": 14}  # llama_ftype; q4_k: Q4_K_S


class Params(ctypes.Structure):
    # The first fields of llama_model_quantize_params, and room for those behind them.
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_char * 248)]


lib = {}
for name in ("ggml-base", "ggml-cpu-x64", "ggml", "llama"):
    path = glob.glob(os.path.join(folder, f"lib{name}.so*")) or glob.glob(os.path.join(folder, f"lib{name}.v*.so"))
    lib[name] = ctypes.CDLL(path[0], mode=ctypes.RTLD_GLOBAL)
backend = lib["ggml"]
backend.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
backend.ggml_backend_load_all_from_path(folder.encode())
llama = lib["llama"]
llama.llama_model_quantize_default_params.restype = Params
llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
llama.llama_model_quantize.restype = ctypes.c_uint32
params = llama.llama_model_quantize_default_params()
params.ftype = KINDS[kind]
params.nthread = 2
sys.exit(llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)))
