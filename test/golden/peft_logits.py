"""What PEFT answers with an adapter folder: the logits after the last token, as JSON on standard output.

    python test/golden/peft_logits.py MODEL FOLDER '[1, 403, 407]'
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(model, sys.argv[2], autocast_adapter_dtype=False).eval()
with torch.no_grad():
    print(json.dumps(model(input_ids=torch.tensor([json.loads(sys.argv[3])])).logits[0, -1].tolist()))
