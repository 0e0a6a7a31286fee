def make_prompt_cache(_model):
    return []
